"""kill -9 of daemons, of the supervisor, of both: status tells the truth, stop works, the next start recovers."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.helpers.tiny_daemon import TinyStack, kill, tiny_stack, until

from sage.common.atomic import read_json, write_json
from sage.common.errors import DaemonError
from sage.common.process import ProcessIdentity
from sage.common.stack import read_status
from sage.supervisor import stop_without_supervisor

pytestmark = [pytest.mark.faults]


@pytest.fixture
def stack(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[TinyStack]:
    with tiny_stack(tmp_path, free_port) as made:
        yield made


@pytest.mark.spec("R1")
def test_a_killed_daemon_is_restarted(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    first, gateway = stack.now().pid, stack.now("gateway").pid
    kill(first)
    until(lambda: stack.now().state == "ready" and stack.now().pid != first, "the daemon is back")
    assert stack.now().restarts == 1
    assert stack.now("gateway").pid == gateway
    stack.client.stop()
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_workers_of_a_killed_daemon_do_not_survive_it(stack: TinyStack) -> None:
    stack.client.start([stack.spec(mode="stubborn", stop_grace_s=0.2)])
    worker = ProcessIdentity.of(psutil.Process(stack.now().pid).children()[0].pid)
    assert worker is not None
    stack.behave("engine", "ok")
    kill(stack.now().pid)
    until(lambda: stack.now().restarts == 1 and stack.now().state == "ready", "the daemon is back")
    assert not worker.alive()


@pytest.mark.spec("R1", "X6")
def test_without_a_supervisor_status_and_stop_tell_the_truth(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    stack.kill_supervisor()
    status = read_status(stack.home)
    assert (status.supervisor_alive, status.supervisor_pid) == (False, None)
    assert [daemon.state for daemon in status.daemons] == ["ready", "ready"], "they live and answer"
    assert "nobody restarts these daemons" in status.notes[-1]

    kill(stack.now("engine").pid)
    assert (stack.now("engine").state, stack.now("gateway").state) == ("dead", "ready")

    stopped = stack.client.stop()
    assert [(daemon.name, daemon.state) for daemon in stopped] == [("gateway", "stopped")]
    assert stack.farewell("gateway") == "", "it was asked, not killed"
    assert stack.processes() == []
    assert [daemon.state for daemon in read_status(stack.home).daemons] == ["stopped", "stopped"]
    assert read_json(stack.home.daemon_json)["ports"] == {}


@pytest.mark.spec("R1")
def test_some_can_be_stopped_without_a_supervisor(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine", mode="stubborn", stop_grace_s=0.2)])
    stack.kill_supervisor()
    with pytest.raises(DaemonError, match="no daemon 'nobody'"):
        stop_without_supervisor(stack.home, ["nobody"])
    assert [daemon.name for daemon in stop_without_supervisor(stack.home, ["engine"])] == ["engine"]
    assert stack.now("gateway").state == "ready"
    assert len(stack.processes()) == 1, "the stubborn daemon and its child were killed"
    stop_without_supervisor(stack.home)
    assert stack.processes() == []


def test_a_living_supervisor_is_not_passed_over(stack: TinyStack) -> None:
    stack.client.start([stack.spec()])
    with pytest.raises(DaemonError, match="A supervisor is running"):
        stop_without_supervisor(stack.home)
    assert stack.now().state == "ready"


@pytest.mark.spec("R1")
def test_the_next_supervisor_adopts_the_living_and_cares_for_them(stack: TinyStack) -> None:
    spec = stack.spec(env={"TINY_SECRET": "s3cr3t"})
    first = stack.client.start([spec])[0].pid
    old = stack.kill_supervisor()
    new = stack.client.ensure_running()
    assert new != old
    until(lambda: stack.now().state == "ready", "it is adopted")
    assert stack.now().pid == first
    assert stack.client.start([spec])[0].pid == first, "the same specification, values of variables included"
    kill(first)
    until(lambda: stack.now().state == "ready" and stack.now().pid != first, "an adopted daemon is restarted")
    stack.client.stop()
    assert stack.farewell("engine") == "s3cr3t", "with its variables"
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_an_adopted_daemon_is_stopped_gracefully(stack: TinyStack) -> None:
    stack.client.start([stack.spec()])
    stack.kill_supervisor()
    stack.client.ensure_running()
    assert [daemon.state for daemon in stack.client.stop()] == ["stopped"]
    assert stack.farewell("engine") == ""
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_the_next_supervisor_clears_the_dead(stack: TinyStack) -> None:
    specs = [stack.spec("gateway", "gateway"), stack.spec("engine")]
    stack.client.start(specs)
    gateway, engine = stack.now("gateway").pid, stack.now("engine").pid
    stack.kill_supervisor()
    kill(engine)
    stack.client.ensure_running()
    assert [daemon.name for daemon in read_status(stack.home).daemons] == ["gateway"]
    again = stack.client.start(specs)
    assert [daemon.state for daemon in again] == ["ready", "ready"]
    assert again[0].pid == gateway
    assert again[1].pid != engine


@pytest.mark.spec("R1")
def test_everything_is_killed_and_comes_back(stack: TinyStack) -> None:
    spec = stack.spec()
    stack.client.start([spec])
    stack.kill_supervisor()
    kill(stack.now().pid)
    assert (stack.now().state, read_status(stack.home).running) == ("dead", False)
    assert stack.client.stop() == []
    assert stack.client.start([spec])[0].state == "ready"
    stack.client.stop()
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_a_killed_supervisor_and_a_damaged_file(stack: TinyStack) -> None:
    spec = stack.spec()
    first = stack.client.start([spec])[0].pid
    stack.kill_supervisor()
    stack.home.daemon_json.write_text('{"version": 1, "daem')
    assert [daemon.pid for daemon in read_status(stack.home).daemons] == [first], "found among the processes"
    stack.client.ensure_running()
    status = read_status(stack.home)
    assert [daemon.pid for daemon in status.daemons] == [first]
    assert "damaged" in status.notes[0]
    assert len(list(stack.home.llm_dir.glob("daemon.json.corrupt-*"))) == 1
    assert stack.client.start([spec])[0].pid == first
    stack.kill_supervisor()
    stack.home.daemon_json.write_text("")
    assert [daemon.name for daemon in stack.client.stop()] == ["engine"]
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_a_supervisor_killed_in_the_middle_of_a_start(stack: TinyStack) -> None:
    spec = stack.spec(mode="starting")
    stack.client.start([spec], wait=False)
    until(lambda: stack.now().pid != 0, "the process was made")
    first = stack.now().pid
    stack.kill_supervisor()
    stack.behave("engine", "ok")
    assert stack.client.start([spec])[0].pid == first, "no second one beside it"
    assert stack.now().state == "ready"


@pytest.mark.spec("R1")
def test_a_client_hears_of_the_end_of_its_supervisor(stack: TinyStack) -> None:
    spec = stack.spec(mode="starting")
    killed: list[int] = []

    with pytest.raises((DaemonError, ConnectionError)) as caught:
        stack.client.start([spec], on_event=lambda d: killed.append(0 if killed else stack.kill_supervisor()))
    assert "ended before it answered" in str(caught.value)


@pytest.mark.spec("R1")
def test_a_crash_loop_is_seen_and_ended_by_a_person(stack: TinyStack) -> None:
    stack.client.start([stack.spec()])
    stack.behave("engine", "exit")
    kill(stack.now().pid)
    until(lambda: stack.now().state == "crash-loop", "five crashes in a minute")
    looped = stack.now()
    assert looped.last_error.startswith("exited with code 3")
    assert "cannot load the model" in looped.last_error
    assert looped.restarts == 4
    assert read_status(stack.home).supervisor_alive
    stack.behave("engine", "ok")
    assert [(daemon.state, daemon.restarts) for daemon in stack.client.restart()] == [("ready", 0)]


@pytest.mark.spec("R1")
def test_a_stale_file_with_a_reused_pid_hurts_nobody(stack: TinyStack) -> None:
    """After a reboot, or long after: the pid of the record belongs to a stranger now."""
    spec = stack.spec()
    stack.client.start([spec])
    stack.client.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as stranger:
        identity = ProcessIdentity.of(stranger.pid)
        assert identity is not None
        stale = {"pid": stranger.pid, "start_ticks": identity.start_ticks - 1, "boot_id": identity.boot_id}
        content = read_json(stack.home.daemon_json)
        content["supervisor"] = {**stale, "started_at": 1.0}
        content["daemons"]["engine"] |= {"state": "ready", **stale}
        write_json(stack.home.daemon_json, content)
        write_json(stack.home.lock, stale)

        status = read_status(stack.home)
        assert not status.supervisor_alive
        assert (status.daemons[0].state, status.daemons[0].pid) == ("dead", 0)
        assert stack.client.stop() == []
        assert stack.client.start([spec])[0].state == "ready"
        stack.client.stop()
        assert identity.alive(), "the stranger lives"
        stranger.communicate(b"\n")
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_killing_again_and_again_leaves_nothing_behind(stack: TinyStack) -> None:
    specs = [stack.spec("gateway", "gateway"), stack.spec("engine"), stack.spec("embedding", "embedding")]
    for turn in range(4):
        assert {daemon.state for daemon in stack.client.start(specs)} == {"ready"}
        victims = [stack.now(spec.name).pid for spec in specs[: turn % 3]]
        stack.kill_supervisor()
        for victim in victims:
            kill(victim)
    assert len(stack.processes()) <= 3
    stack.client.stop()
    assert stack.processes() == []
    assert json.loads(stack.home.daemon_json.read_text())["supervisor"] is None


@pytest.mark.slow
@pytest.mark.spec("R1")
def test_a_kill_at_any_moment_leaves_what_the_next_start_mends(stack: TinyStack) -> None:
    """The supervisor is killed somewhere in the middle of a start, a stop or a restart, at moments drawn by lot."""
    chance = random.Random(7)
    specs = [stack.spec("gateway", "gateway"), stack.spec("engine")]
    acts: list[Callable[[], object]] = [partial(stack.client.start, specs), stack.client.stop, stack.client.restart]
    for turn in range(6):
        act = acts[turn % 3]
        if turn % 3:
            stack.client.start(specs)
        killer = threading.Timer(chance.uniform(0.0, 0.4), kill_any_supervisor, [stack])
        killer.start()
        with contextlib.suppress(DaemonError, ConnectionError):
            act()
        killer.join()
        assert [daemon.state for daemon in stack.client.start(specs)] == ["ready", "ready"]
        assert len(stack.processes()) == 3, "no daemon twice, no second supervisor"
    stack.client.stop()
    assert stack.processes() == []


def kill_any_supervisor(stack: TinyStack) -> None:
    pid = read_status(stack.home).supervisor_pid
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

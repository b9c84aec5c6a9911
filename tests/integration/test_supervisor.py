"""The supervisor with real processes: start, readiness, events, stop, what a client may do to it."""

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.helpers.tiny_daemon import TinyStack, tiny_stack, until

from sage.common.errors import DaemonError, StateError
from sage.common.home import SageHome
from sage.common.stack import read_status
from sage.supervisor import DaemonStatus, SupervisorClient, client


@pytest.fixture
def stack(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[TinyStack]:
    with tiny_stack(tmp_path, free_port) as made:
        yield made


@pytest.mark.spec("X6", "P3", "R1")
def test_a_stack_starts_tells_what_it_does_and_stops(stack: TinyStack) -> None:
    events: list[tuple[str, str]] = []
    specs = [stack.spec("gateway", "gateway"), stack.spec("engine", model="sage-builtin")]
    started = stack.client.start(specs, on_event=lambda d: events.append((d.name, d.state)), notes=["port moved"])

    assert [(daemon.name, daemon.state) for daemon in started] == [("gateway", "ready"), ("engine", "ready")]
    assert {("gateway", "starting"), ("engine", "ready")} <= set(events)
    status = read_status(stack.home)
    assert status.supervisor_alive
    assert status.notes == ["port moved"]
    engine = stack.now()
    assert (engine.url, engine.model) == (f"http://127.0.0.1:{specs[1].port}", "sage-builtin")
    assert engine.ready_at is not None
    assert engine.started_at is not None
    assert engine.ready_at >= engine.started_at
    assert stat.S_IMODE(stack.home.daemon_json.stat().st_mode) == 0o600
    assert json.loads(stack.home.daemon_json.read_text())["ports"] == {"gateway": specs[0].port, "llm": specs[1].port}
    assert os.getsid(engine.pid) == engine.pid, "a session of its own"

    stopped = stack.client.stop()
    assert [(daemon.name, daemon.state, daemon.exit_code) for daemon in stopped] == [
        ("gateway", "stopped", 0),
        ("engine", "stopped", 0),
    ]
    assert stack.farewell("engine") == "", "it was asked, not killed"
    assert stack.processes() == []
    assert not stack.home.socket.exists()
    after = read_status(stack.home)
    assert (after.supervisor_alive, after.running, after.notes) == (False, False, [])
    assert stack.client.stop() == [], "stopping twice is no error"


@pytest.mark.spec("X6")
def test_starting_again_changes_nothing(stack: TinyStack) -> None:
    spec = stack.spec()
    first = stack.client.start([spec])[0].pid
    assert stack.client.start([spec])[0].pid == first
    other = stack.spec("embedding", "embedding")
    both = stack.client.start([spec, other])
    assert [daemon.pid == first for daemon in both] == [True, False]


@pytest.mark.spec("X6", "X12")
def test_other_settings_are_refused_or_replace(stack: TinyStack) -> None:
    spec = stack.spec(model="small")
    first = stack.client.start([spec])[0].pid
    with pytest.raises(DaemonError, match="already running with other settings: model small → big") as caught:
        stack.client.start([replace(spec, model="big"), stack.spec("gateway", "gateway")])
    assert "sage llm stop" in caught.value.hint
    assert stack.now().pid == first
    assert read_status(stack.home).daemon("gateway") is None, "nothing was started"
    again = stack.client.start([replace(spec, model="big")], replace=True)[0]
    assert again.state == "ready"
    assert again.pid != first
    assert not psutil.pid_exists(first)


@pytest.mark.spec("X6", "X12", "R4")
def test_a_daemon_that_ends_while_it_starts_fails_at_once_with_its_last_words(stack: TinyStack) -> None:
    began = time.monotonic()
    failed = stack.client.start([stack.spec(mode="exit", ready_timeout_s=60.0)])[0]
    assert time.monotonic() - began < 20
    assert (failed.state, failed.exit_code, failed.pid) == ("failed", 3, 0)
    assert failed.last_error.splitlines()[0] == "exited with code 3"
    assert "cannot load the model" in failed.last_error
    assert "verysecret" not in failed.last_error
    stack.behave("engine", "ok")


def test_a_command_that_does_not_exist_fails_clearly(stack: TinyStack) -> None:
    failed = stack.client.start([replace(stack.spec(), argv=("/no/such/program",))])[0]
    assert failed.state == "failed"
    assert failed.last_error == "cannot start /no/such/program: No such file or directory"


@pytest.mark.spec("P2")
def test_a_taken_port_names_who_holds_it(stack: TinyStack) -> None:
    spec = stack.spec()
    with socket.create_server(("127.0.0.1", spec.port)):
        failed = stack.client.start([spec])[0]
    assert failed.state == "failed"
    assert failed.last_error.startswith(f"port {spec.port} is in use by pid {os.getpid()}: ")
    assert stack.client.start([spec])[0].state == "ready", "a failed daemon can be started again"


@pytest.mark.spec("R1")
def test_a_daemon_that_will_not_stop_is_killed_with_its_children(stack: TinyStack) -> None:
    stack.client.start([stack.spec(mode="stubborn", stop_grace_s=0.2)])
    assert len(stack.processes()) == 3, "the supervisor, the daemon, its child"
    assert stack.client.stop()[0].exit_code == -signal.SIGKILL
    assert stack.processes() == []


@pytest.mark.spec("X6")
def test_some_can_be_stopped_and_restarted(stack: TinyStack) -> None:
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    gateway, engine = stack.now("gateway").pid, stack.now("engine").pid
    restarted = stack.client.restart(["engine"])
    assert [(daemon.name, daemon.state, daemon.restarts) for daemon in restarted] == [("engine", "ready", 0)]
    assert restarted[0].pid != engine
    assert stack.now("gateway").pid == gateway
    stack.client.stop(["engine"])
    assert (stack.now("engine").state, stack.now("gateway").state) == ("stopped", "ready")
    with pytest.raises(DaemonError, match="no daemon 'nobody'") as caught:
        stack.client.stop(["nobody"])
    assert "engine, gateway" in caught.value.cause
    assert [daemon.state for daemon in stack.client.restart()] == ["ready", "ready"]
    stack.client.stop(["engine", "gateway"])
    until(lambda: stack.processes() == [], "the supervisor ends when nothing is left")


@pytest.mark.spec("X6", "R1")
def test_it_outlives_the_shell_and_ctrl_c(stack: TinyStack) -> None:
    """The command that starts it gets Ctrl-C, as does its whole foreground group, and its terminal goes away."""
    code = (
        "import sys; from sage.supervisor import SupervisorClient; from sage.common.home import SageHome\n"
        "print(SupervisorClient(SageHome(sys.argv[1])).ensure_running(), flush=True); sys.stdin.read()"
    )
    shell = subprocess.Popen(
        [sys.executable, "-c", code, str(stack.home.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    os.killpg(shell.pid, signal.SIGINT)
    os.killpg(shell.pid, signal.SIGHUP)
    shell.communicate()
    assert os.getsid(pid) != shell.pid
    assert read_status(stack.home).supervisor_pid == pid
    assert stack.client.ensure_running() == pid
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)] == [  # noqa: PTH115
        "/dev/null",
        str(stack.home.logs / "supervisor.log"),
    ]
    stack.client.shutdown()
    assert stack.processes() == []


@pytest.mark.spec("R1")
def test_many_that_start_it_at_once_get_one(stack: TinyStack) -> None:
    code = (
        "import sys; from sage.supervisor import SupervisorClient; from sage.common.home import SageHome\n"
        "print(SupervisorClient(SageHome(sys.argv[1])).ensure_running())"
    )
    argv = [sys.executable, "-c", code, str(stack.home.root)]
    shells = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({shell.communicate(timeout=60)[0] for shell in shells}) == 1
    assert len(stack.processes()) == 1


def test_a_client_that_goes_away_in_the_middle_leaves_a_sound_state(stack: TinyStack) -> None:
    """Ctrl-C during `sage llm serve`: the daemon comes up, or is stopped by whoever asks next."""
    spec = stack.spec(mode="starting")

    def interrupt(daemon: DaemonStatus) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stack.client.start([spec], on_event=interrupt)
    assert stack.now().state == "starting"
    stack.behave("engine", "ok")
    until(lambda: stack.now().state == "ready", "it goes on without the client")
    stack.client.stop()
    assert stack.processes() == []


def test_a_start_can_be_stopped_from_elsewhere(stack: TinyStack) -> None:
    """Two shells: one waits for a daemon that never becomes ready, the other stops everything."""
    states: list[str] = []

    def stop_now(daemon: DaemonStatus) -> None:
        states.append(daemon.state)
        if daemon.pid and states.count("starting") and "stopped" not in states:
            SupervisorClient(stack.home).stop([daemon.name])

    ended = stack.client.start([stack.spec(mode="starting"), stack.spec("gateway", "gateway")], on_event=stop_now)
    assert "stopped" in {daemon.state for daemon in ended}


@pytest.mark.spec("R4")
def test_variables_reach_the_daemon_and_nobody_else(stack: TinyStack) -> None:
    stack.client.start([stack.spec(env={"TINY_SECRET": "s3cr3t"})])
    shown = " ".join(psutil.Process(stack.now().pid).cmdline())
    told = [path.read_text() for path in (stack.home.daemon_json, *stack.home.logs.iterdir())]
    stack.client.stop()
    assert stack.farewell("engine") == "s3cr3t"
    assert "s3cr3t" not in shown + "".join(told)


def test_daemons_get_the_environment_of_the_command_that_starts_them(
    stack: TinyStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the supervisor runs since yesterday, and through its death."""
    stack.client.ensure_running()
    monkeypatch.setenv("TINY_SECRET", "today's")
    spec = stack.spec()
    stack.client.start([spec])
    monkeypatch.delenv("TINY_SECRET")
    stack.kill_supervisor()
    stack.client.ensure_running()
    stack.client.restart()
    stack.client.stop()
    assert stack.farewell("engine") == "today's"


def test_a_deep_home_has_its_socket_elsewhere(tmp_path: Path, free_port: Callable[[], int]) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with tiny_stack(deep, free_port) as stack:
        assert stack.client.start([stack.spec()])[0].state == "ready"
        assert stack.home.socket.exists()
        assert stat.S_IMODE(stack.home.socket.parent.stat().st_mode) == 0o700
        stack.client.stop()
        assert not stack.home.socket.exists()


@pytest.mark.spec("R3", "X12")
def test_a_home_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".sage").write_text("a file in the way")
    with pytest.raises(StateError, match="is a file, not a folder") as caught:
        SupervisorClient(SageHome(tmp_path / ".sage")).ensure_running()
    assert "SAGE_HOME" in caught.value.hint


def test_a_supervisor_that_cannot_start_says_why(stack: TinyStack) -> None:
    stack.home.ensure()
    stack.home.daemon_json.mkdir()
    with pytest.raises(DaemonError, match="did not start: Cannot read"):
        stack.client.ensure_running()
    until(lambda: stack.processes() == [], "it ends after its last words")


def raw(stack: TinyStack, line: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(stack.home.socket))
        connection.sendall(line + b"\n")
        answer = json.loads(connection.makefile().readline())
        assert isinstance(answer, dict)
        return answer


@pytest.mark.spec("R3")
@pytest.mark.parametrize(
    ("line", "title"),
    [
        (b"nonsense", "The request is no JSON"),
        (b"[]", "The request names no operation"),
        (b'{"version": 1, "op": "dance"}', "The supervisor knows no 'dance'"),
        (b'{"version": 1, "op": "start", "specs": [{"name": 1}]}', "This is no daemon specification"),
        (b'{"version": 1, "op": "start", "specs": 7}', "The supervisor failed"),
        (b'{"version": 99, "op": "status"}', "This supervisor is of another version of SAGE"),
    ],
)
def test_nonsense_on_the_socket_is_answered_and_survived(stack: TinyStack, line: bytes, title: str) -> None:
    pid = stack.client.ensure_running()
    answer = raw(stack, line)
    assert answer["ok"] is False
    assert isinstance(answer["error"], dict)
    assert answer["error"]["title"] == title
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(stack.home.socket))  # and goes away without a word
    assert stack.client.ensure_running() == pid


def test_every_version_can_end_it(stack: TinyStack) -> None:
    stack.client.ensure_running()
    assert raw(stack, b'{"version": 99, "op": "stop", "names": null}')["ok"] is True
    until(lambda: stack.processes() == [], "it ends")


def test_a_stopped_supervisor_is_not_waited_for_for_ever(stack: TinyStack, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = stack.client.ensure_running()
    monkeypatch.setattr(client, "_CONNECT_S", 0.3)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DaemonError, match="does not answer") as caught:
        stack.client.ensure_running()
    assert f"kill -9 {pid}" in caught.value.hint
    os.kill(pid, signal.SIGCONT)
    stack.client.stop()
    assert stack.processes() == []


def test_term_ends_everything(stack: TinyStack) -> None:
    stack.client.start([stack.spec()])
    pid = read_status(stack.home).supervisor_pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    until(lambda: stack.processes() == [], "the supervisor and its daemon are gone")
    assert stack.farewell("engine") == ""
    assert stack.now().state == "stopped"


@pytest.mark.spec("R1")
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux only")
def test_a_full_disk_does_not_keep_it_from_stopping(stack: TinyStack) -> None:
    """No file can grow any more: neither daemon.json nor the log can be written."""
    stack.client.start([stack.spec("gateway", "gateway"), stack.spec("engine")])
    before = stack.home.daemon_json.read_text()
    resource.prlimit(stack.client.ensure_running(), resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    assert {daemon.state for daemon in stack.client.stop()} == {"stopped"}
    assert stack.processes() == []
    assert stack.home.daemon_json.read_text() == before
    status = read_status(stack.home)
    assert (status.supervisor_alive, status.running) == (False, False), "the truth in spite of an old file"
    assert stack.client.start([stack.spec()])[0].state == "ready"


def test_each_start_has_its_own_log(stack: TinyStack) -> None:
    spec = stack.spec()
    stack.client.start([spec])
    stack.client.restart()
    log = Path(stack.now().log)
    assert log == stack.home.logs / "engine.log"
    assert log.read_text().count("starting with") == 1
    assert log.with_name("engine.log.1").read_text().count("starting with") == 1

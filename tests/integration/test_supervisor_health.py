"""What the supervisor does about daemons that live and are not well: with real processes and quick tuning."""

import asyncio
import contextlib
import http.server
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.tiny_daemon import TinyStack, tiny_stack

from sage.supervisor import handle
from sage.supervisor.lock import take_lock
from sage.supervisor.policy import Tuning
from sage.supervisor.spec import DaemonSpec
from sage.supervisor.supervisor import Supervisor

QUICK = Tuning(
    backoff_base_s=0.05,
    probe_interval_s=0.05,
    probe_timeout_s=0.5,
    ready_poll_s=0.02,
    failures_to_unhealthy=2,
    failures_to_restart=4,
    log_max_bytes=2000,
    log_check_s=0.05,
    idle_exit_s=0.2,
)


@pytest.fixture
def stack(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[TinyStack]:
    with tiny_stack(tmp_path, free_port) as made:
        made.home.ensure()
        yield made


@asynccontextmanager
async def supervising(stack: TinyStack, *specs: DaemonSpec, wait: bool = True) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(stack.home, QUICK)
    supervisor.take_over()
    try:
        await supervisor.start(specs)
        if wait:
            await settled(supervisor, *[spec.name for spec in specs])
        yield supervisor
    finally:
        await supervisor.close(stop_daemons=True)
    assert [process for process in stack.processes() if process.pid != os.getpid()] == []


async def settled(supervisor: Supervisor, *names: str) -> None:
    async with contextlib.aclosing(supervisor.settle(names)) as changes:
        async for _ in changes:
            pass


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - a real process is polled
            await asyncio.sleep(0.02)


@pytest.mark.spec("R1")
async def test_a_daemon_that_hangs_is_unhealthy_and_then_restarted(stack: TinyStack) -> None:
    async with supervising(stack, stack.spec(stop_grace_s=0.5)) as supervisor:
        status = supervisor.daemons["engine"].status
        first = status.pid
        stack.behave("engine", "hang")
        await becomes(lambda: status.state == "unhealthy")
        assert "no answer from /health" in status.last_error
        assert status.pid == first
        await becomes(lambda: status.state in ("backing-off", "starting"))
        stack.behave("engine", "ok")
        await becomes(lambda: status.state == "ready")
        assert status.pid != first
        assert status.restarts >= 1
        assert status.last_error == ""


@pytest.mark.spec("R1")
async def test_a_daemon_that_is_busy_recovers_without_a_restart(stack: TinyStack) -> None:
    async with supervising(stack, stack.spec()) as supervisor:
        status = supervisor.daemons["engine"].status
        first = status.pid
        stack.behave("engine", "starting")
        await becomes(lambda: status.state == "unhealthy")
        assert status.last_error == "told so"
        stack.behave("engine", "ok")
        await becomes(lambda: status.state == "ready")
        assert (status.pid, status.restarts) == (first, 0)


@pytest.mark.spec("R1")
async def test_an_engine_that_calls_itself_broken_is_restarted_a_gateway_is_not(stack: TinyStack) -> None:
    specs = [stack.spec("engine"), stack.spec("gateway", "gateway")]
    async with supervising(stack, *specs) as supervisor:
        engine, gateway = (supervisor.daemons[name].status for name in ("engine", "gateway"))
        for name in ("engine", "gateway"):
            stack.behave(name, "sick")
        await becomes(lambda: engine.restarts >= 1)
        stack.behave("engine", "ok")
        await becomes(lambda: engine.state == "ready")
        assert (gateway.state, gateway.restarts) == ("unhealthy", 0)


@pytest.mark.spec("R1", "X12")
async def test_a_daemon_that_never_becomes_ready_fails_with_the_reason(stack: TinyStack) -> None:
    spec = stack.spec(mode="starting", ready_timeout_s=2.0)
    async with supervising(stack, spec) as supervisor:
        status = supervisor.daemons["engine"].status
        assert status.state == "failed"
        assert status.last_error.startswith("not ready after 2 s: told so")
        assert "starting with" in status.last_error, "the last log lines"


@pytest.mark.spec("P2", "R1")
async def test_a_stranger_on_the_port_does_not_make_a_daemon_ready(stack: TinyStack) -> None:
    """Somebody takes the port just after the daemon was started, and answers /health with 200."""

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            assert self.path == "/health"

    spec = stack.spec(mode="deaf", ready_timeout_s=1.0, stop_grace_s=0.2)
    async with supervising(stack, spec, wait=False) as supervisor:
        status = supervisor.daemons["engine"].status
        await becomes(lambda: status.pid != 0)
        with http.server.HTTPServer(("127.0.0.1", spec.port), Stranger) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                await settled(supervisor, "engine")
            finally:
                server.shutdown()
                thread.join()
        assert status.state == "failed"
        assert f"port {spec.port} is held by pid {os.getpid()}" in status.last_error


@pytest.mark.spec("R1")
async def test_a_damaged_daemon_json_is_written_again(stack: TinyStack) -> None:
    async with supervising(stack, stack.spec()):
        for damage in (lambda: stack.home.daemon_json.write_text("{"), stack.home.daemon_json.unlink):
            damage()
            await becomes(lambda: stack.home.daemon_json.exists() and len(stack.home.daemon_json.read_text()) > 10)
            assert stack.now().state == "ready"


@pytest.mark.spec("R1")
async def test_a_full_disk_does_not_stop_supervision(stack: TinyStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with supervising(stack, stack.spec()) as supervisor:
        real = os.replace
        first = supervisor.daemons["engine"].status.pid

        def full(source: str, target: str, **more: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        os.kill(first, 9)
        await becomes(lambda: supervisor.daemons["engine"].status.restarts == 1)
        await settled(supervisor, "engine")
        assert stack.now().state == "dead", "the file is old: the reader sees that this pid is gone"
        monkeypatch.setattr(os, "replace", real)
        await becomes(lambda: stack.now().state == "ready")


@pytest.mark.spec("R1")
async def test_logs_are_rotated_while_the_daemon_writes(stack: TinyStack) -> None:
    async with supervising(stack, stack.spec()) as supervisor:
        log = supervisor.daemons["engine"].log.path
        with log.open("a") as file:
            file.write("x" * 3000)
        await becomes(log.with_name("engine.log.1").exists)
        await becomes(lambda: log.stat().st_size == 0)


@pytest.mark.spec("R1")
async def test_a_supervisor_with_nothing_to_do_ends(stack: TinyStack) -> None:
    async with supervising(stack, stack.spec(mode="exit")) as supervisor:
        async with asyncio.timeout(10):
            await supervisor.done.wait()
    stack.behave("engine", "ok")


async def test_a_successor_takes_over_and_nothing_is_stopped(stack: TinyStack) -> None:
    spec = stack.spec()
    first = Supervisor(stack.home, QUICK)
    first.take_over()
    await first.start([spec])
    await settled(first, "engine")
    pid = first.daemons["engine"].status.pid
    await first.close(stop_daemons=False)
    async with supervising(stack, spec) as second:
        assert second.daemons["engine"].status.pid == pid
        assert second.daemons["engine"].spec == spec


@pytest.mark.spec("R1")
async def test_a_removed_home_ends_everything(stack: TinyStack) -> None:
    """rm -rf of a project must not leave daemons that nobody can find any more."""
    lock = take_lock(stack.home)
    assert lock is not None
    async with supervising(stack, stack.spec()) as supervisor:
        shutil.rmtree(stack.home.root)
        async with asyncio.timeout(10):
            await supervisor.done.wait()
        assert not supervisor.leave_daemons
    os.close(lock)


@pytest.mark.spec("R1")
async def test_a_home_made_anew_keeps_its_daemons_for_the_successor(stack: TinyStack) -> None:
    """The directory was removed and a new supervisor has taken its lock, and with it the daemons."""
    old_lock = take_lock(stack.home)
    assert old_lock is not None
    first = Supervisor(stack.home, QUICK)
    first.take_over()
    await first.start([stack.spec()])
    await settled(first, "engine")
    pid = first.daemons["engine"].status.pid
    shutil.rmtree(stack.home.root)
    stack.home.ensure()
    new_lock = take_lock(stack.home)
    assert new_lock is not None
    async with supervising(stack) as second:
        async with asyncio.timeout(10):
            await first.done.wait()
        assert first.leave_daemons
        await first.close(stop_daemons=False)
        await settled(second, "engine")
        assert second.daemons["engine"].status.pid == pid
        assert stack.now().state == "ready"
    for lock in (old_lock, new_lock):
        os.close(lock)


@pytest.mark.spec("X12")
async def test_one_that_fails_ends_the_wait_for_all(stack: TinyStack) -> None:
    """A gateway that waits for an engine which cannot start would else cost its whole time to become ready."""
    specs = [stack.spec("gateway", "gateway", mode="starting", ready_timeout_s=60.0), stack.spec(mode="exit")]
    async with supervising(stack, *specs) as supervisor:
        states = {name: daemon.status.state for name, daemon in supervisor.daemons.items()}
        assert states == {"gateway": "starting", "engine": "failed"}


async def test_one_that_is_up_and_stays_unhealthy_is_not_waited_for(
    stack: TinyStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage.supervisor.supervisor._SLACK_S", 0.1)
    spec = stack.spec("gateway", "gateway", ready_timeout_s=5.0, stop_grace_s=0.1)
    async with supervising(stack, spec) as supervisor:
        stack.behave("gateway", "starting")
        await becomes(lambda: supervisor.daemons["gateway"].status.state == "unhealthy")
        async with asyncio.timeout(20):
            await settled(supervisor, "gateway")
        assert supervisor.daemons["gateway"].status.state == "unhealthy"


@pytest.mark.parametrize("mode", ["ok", "stubborn"])
async def test_without_pidfds_ends_are_seen_by_polling(
    stack: TinyStack, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """macOS has none."""
    monkeypatch.setattr(handle, "_pidfd", lambda pid: None)
    async with supervising(stack, stack.spec(mode=mode, stop_grace_s=0.2)) as supervisor:
        status = supervisor.daemons["engine"].status
        os.kill(status.pid, 9)
        await becomes(lambda: status.restarts == 1 and status.state == "ready")

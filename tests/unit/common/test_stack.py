"""What runs, told from files: the truth also when everything was killed."""

import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.atomic import write_json
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import StackStatus, read_status

ME = ProcessIdentity.current()._asdict()
DEAD = {**ME, "start_ticks": ME["start_ticks"] - 1}


def record(home: SageHome, supervisor: dict[str, Any] | None, **engine: Any) -> StackStatus:
    entry = {"kind": "llm", "state": "ready", "host": "127.0.0.1", "port": 1, "log": "x.log", **ME, **engine}
    write_json(home.daemon_json, {"version": 1, "supervisor": supervisor, "daemons": {"engine": entry}, "notes": ["n"]})
    return read_status(home)


@pytest.mark.spec("P3", "R1")
def test_nothing_was_ever_started(home: SageHome) -> None:
    assert read_status(home) == StackStatus(False, None, [], [])
    assert read_status(SageHome(home.root / "none")).daemons == []


@pytest.mark.spec("P3", "R1")
def test_a_supervised_daemon_is_what_the_supervisor_says(home: SageHome) -> None:
    status = record(home, ME, state="unhealthy", last_error="slow", restarts=2)
    assert status.supervisor_pid == os.getpid()
    assert status.notes == ["n"]
    daemon = status.daemon("engine")
    assert daemon is not None
    assert (daemon.state, daemon.last_error, daemon.restarts, daemon.pid) == ("unhealthy", "slow", 2, os.getpid())
    assert status.running
    assert status.first("llm") is None
    assert status.first("llm", "unhealthy") is daemon


@pytest.mark.spec("R1")
@pytest.mark.parametrize("state", ["ready", "starting", "stopping", "unhealthy"])
def test_a_daemon_whose_process_is_gone_is_dead_whatever_the_file_says(home: SageHome, state: str) -> None:
    """A stale pid file, with the pid in use by somebody else since."""
    status = record(home, DEAD, state=state, **DEAD)
    assert not status.supervisor_alive
    assert not status.running
    assert (status.daemons[0].state, status.daemons[0].pid) == ("dead", 0)
    assert "is gone" in status.daemons[0].last_error


@pytest.mark.parametrize(("supervisor", "state"), [(ME, "backing-off"), (None, "dead")])
def test_nobody_restarts_a_daemon_without_a_supervisor(
    home: SageHome, supervisor: dict[str, Any] | None, state: str
) -> None:
    assert record(home, supervisor, state="backing-off", pid=0).daemons[0].state == state


@pytest.mark.parametrize(("supervisor", "state"), [(ME, "starting"), (None, "dead")])
def test_a_daemon_may_start_before_it_has_a_process(
    home: SageHome, supervisor: dict[str, Any] | None, state: str
) -> None:
    assert record(home, supervisor, state="starting", pid=0).daemons[0].state == state


@pytest.mark.parametrize("state", ["stopped", "failed", "crash-loop"])
def test_states_without_a_process_stay(home: SageHome, state: str) -> None:
    assert record(home, None, state=state, pid=0).daemons[0].state == state


@pytest.mark.spec("R1")
def test_without_a_supervisor_living_daemons_are_asked(home: SageHome, listener: socket.socket) -> None:
    port = int(listener.getsockname()[1])
    listener.close()
    status = record(home, DEAD, port=port)
    assert status.daemons[0].state == "unhealthy"
    assert "no answer" in status.daemons[0].last_error
    assert "supervisor is not running" in status.notes[-1]

    codes = iter([200, 503])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(codes))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            assert self.path == "/health"

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert record(home, DEAD, port=server.server_port, state="starting").daemons[0].state == "ready"
            ill = record(home, DEAD, port=server.server_port).daemons[0]
        finally:
            server.shutdown()
            thread.join()
    assert (ill.state, ill.last_error) == ("unhealthy", "/health answers 503")


def test_inside_a_daemon_nobody_is_asked(home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_DAEMON", "gateway")
    assert record(home, DEAD, port=1).daemons[0].state == "ready"


@pytest.mark.spec("R1")
def test_the_lock_names_a_supervisor_that_wrote_nothing_yet(home: SageHome) -> None:
    write_json(home.lock, ME)
    assert read_status(home).supervisor_pid == os.getpid()
    write_json(home.lock, DEAD)
    assert not read_status(home).supervisor_alive


@pytest.mark.spec("R1", "R3")
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"daemons": 3}',
        '{"daemons": {"a": 1}, "notes": [2]}',
        '{"daemons": {}, "notes": 5}',
        '{"daemons": {}, "supervisor": 5}',
    ],
    ids=lambda content: content[:40],
)
def test_a_damaged_file_never_raises(home: SageHome, content: str) -> None:
    home.daemon_json.write_text(content)
    status = read_status(home)
    assert status.daemons == []
    assert home.daemon_json.read_text() == content, "reading repairs nothing"


@pytest.mark.spec("R1", "R3")
@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["kind", "state", "port", "host", "restarts", "started_at", "exit_code", "health_path"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.sampled_from(["ready", "127.0.0.1"]),
    )
)
def test_whatever_stands_in_a_record_reading_never_raises(entry: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = SageHome(folder).ensure()
        write_json(home.daemon_json, {"version": 1, "daemons": {"engine": {"host": "127.0.0.1", **ME, **entry}}})
        daemon = read_status(home).daemons[0]
        assert isinstance(daemon.port, int)
        assert isinstance(daemon.state, str)


@pytest.mark.spec("R1")
@pytest.mark.parametrize(
    ("content", "said"),
    [("{ damaged", "is damaged"), ('{"daemons": {"engine": 7}}', "lists no daemons"), (None, "is missing")],
)
def test_with_a_damaged_or_lost_file_daemons_are_found_among_the_processes(
    content: str | None, said: str, home: SageHome
) -> None:
    spec = '{"name": "engine", "kind": "llm", "host": "127.0.0.1", "port": 1, "argv": ["x"], "model": "m"}'
    env = {**os.environ, "SAGE_HOME": str(home.root), "SAGE_DAEMON": "engine", "SAGE_DAEMON_SPEC": spec}
    worker = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    home.lock.touch()  # a supervisor was here
    if content is not None:
        home.daemon_json.write_text(content)
    with subprocess.Popen(
        [sys.executable, "-c", worker], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # the worker, with the same environment, runs too
        status = read_status(home)
        child.communicate(b"\n")
    assert [(d.name, d.kind, d.pid, d.model) for d in status.daemons] == [("engine", "llm", child.pid, "m")]
    assert said in status.notes[0]
    if content is None:
        assert read_status(home) == StackStatus(False, None, [], []), "nothing lives, nothing to say"


def test_odd_types_in_a_record_count_as_missing(home: SageHome) -> None:
    daemon = record(home, ME, port="x", restarts=None, started_at="y", exit_code="z", last_error=3).daemons[0]
    assert (daemon.port, daemon.restarts, daemon.started_at, daemon.exit_code, daemon.last_error) == (
        0,
        0,
        None,
        None,
        "",
    )


def test_status_is_plain_data(home: SageHome) -> None:
    told = record(home, ME).to_dict()
    assert told["daemons"][0]["name"] == "engine"
    assert told["supervisor_alive"] is True


def test_the_default_is_the_nearest_home(home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    record(home, ME)
    monkeypatch.chdir(home.project)
    find: Callable[[], StackStatus] = read_status
    assert find().daemon("engine") is not None
    assert find().daemon("none") is None

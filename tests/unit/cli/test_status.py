"""sage llm status: rows, exit codes, JSON; the truth without a supervisor."""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sage.cli.commands.llm.status import verdict
from sage.common.atomic import write_json
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus, StackStatus


def stack(*states: str, supervised: bool = True) -> StackStatus:
    daemons = [DaemonStatus(f"d{i}", "llm", state) for i, state in enumerate(states)]
    return StackStatus(supervised, 1 if supervised else None, daemons)


@pytest.mark.spec("X11")
@pytest.mark.parametrize(
    ("given", "code"),
    [
        (stack(supervised=False), 3),
        (stack("stopped", "stopped", supervised=False), 3),
        (stack("dead", "dead", supervised=False), 3),
        (stack("ready", "ready"), 0),
        (stack("ready", "stopped"), 0),
        (stack("ready", "starting"), 0),
        (stack("ready", "dead", supervised=False), 1),
        (stack("ready", "unhealthy"), 1),
        (stack("crash-loop", "ready"), 1),
        (stack("failed", "failed"), 1),
        (stack("backing-off"), 1),
    ],
)
def test_the_exit_code_says_how_the_stack_is(given: StackStatus, code: int) -> None:
    assert verdict(given) == code


HEALTHY = """
import http.server
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Health)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A living process that answers /health: what a daemon is to its readers."""

    identity: ProcessIdentity
    port: int


@pytest.fixture
def daemon() -> Iterator[Running]:
    with subprocess.Popen([sys.executable, "-c", HEALTHY], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        identity = ProcessIdentity.of(child.pid)
        assert identity is not None
        yield Running(identity, port)
        child.kill()


def record(home: pathlib.Path, daemon: Running, *, notes: tuple[str, ...] = (), boot_id: str = "") -> None:
    """Write daemon.json as a supervisor does: an engine that runs, an embedding server that was stopped."""
    identity = daemon.identity._replace(boot_id=boot_id or daemon.identity.boot_id)
    engine = {
        "name": "engine",
        "kind": "llm",
        "state": "ready",
        **identity._asdict(),
        "host": "127.0.0.1",
        "port": daemon.port,
        "url": f"http://127.0.0.1:{daemon.port}",
        "model": "sage-builtin",
        "restarts": 2,
        "ready_at": time.time() - 90,
    }
    SageHome(home).ensure()
    stopped = {"name": "embedding", "kind": "embedding", "state": "stopped", "pid": 0}
    entries = {"engine": engine, "embedding": stopped}
    write_json(SageHome(home).daemon_json, {"version": 1, "daemons": entries, "notes": list(notes)})


@pytest.mark.spec("X6", "R1")
def test_a_running_daemon_without_its_supervisor(home: pathlib.Path, daemon: Running, cli: Any) -> None:
    record(home, daemon, notes=("port 1 is in use; using 4321",))
    shown = cli("llm", "status")
    assert shown.code == 0
    row = next(line for line in shown.out.splitlines() if line.startswith("engine"))
    assert row.split()[1:5] == ["ready", str(daemon.identity.pid), f"http://127.0.0.1:{daemon.port}", "sage-builtin"]
    assert "1 min 30 s" in row
    assert "supervisor: not running" in shown.out
    assert "using 4321" in shown.err


def test_json_has_every_field(home: pathlib.Path, daemon: Running, cli: Any) -> None:
    record(home, daemon)
    shown = cli("llm", "status", "--json")
    told = json.loads(shown.out)
    assert told["running"] is told["ready"] is True
    assert told["supervisor"] == {"alive": False, "pid": None}
    assert {row["name"]: row["state"] for row in told["daemons"]} == {"engine": "ready", "embedding": "stopped"}
    assert told["home"] == str(home)


def test_nothing_runs(cli: Any) -> None:
    shown = cli("llm", "status")
    assert shown.code == 3
    assert "Nothing is running" in shown.out
    assert "sage llm serve" in shown.err
    assert json.loads(cli("llm", "status", "--json").out)["daemons"] == []


def test_after_a_reboot_the_pids_of_the_record_are_nobody(home: pathlib.Path, daemon: Running, cli: Any) -> None:
    record(home, daemon, boot_id="another")
    shown = cli("llm", "status")
    assert shown.code == 3
    assert str(daemon.identity.pid) in shown.err


@pytest.mark.spec("R3")
def test_a_damaged_record_is_told(home: pathlib.Path, cli: Any) -> None:
    SageHome(home).ensure()
    SageHome(home).daemon_json.write_text("{")
    shown = cli("llm", "status", "--json")
    assert shown.code == 3
    assert "damaged" in json.loads(shown.out)["notes"][0]


def test_stop_restart_and_logs_where_nothing_runs(cli: Any) -> None:
    """Stopping what does not run is done already; the others say what to type."""
    stopped = cli("llm", "stop")
    assert (stopped.code, stopped.err) == (0, "Nothing was running.\n")
    assert json.loads(cli("llm", "stop", "--json").out) == {"stopped": []}
    for words in (("llm", "restart"), ("llm", "logs"), ("monitor", "logs")):
        shown = cli(*words)
        assert shown.code == 3, words
        assert "sage llm serve" in shown.err


def test_unknown_names_find_the_nearest(home: pathlib.Path, daemon: Running, cli: Any) -> None:
    record(home, daemon)
    for verb in ("stop", "restart"):
        shown = cli("llm", verb, "engin")
        assert shown.code == 2
        assert f"Did you mean:  sage llm {verb} engine" in shown.err

"""Small real daemons, real state files, and a screen that can be read as text."""

from __future__ import annotations

import contextlib
import html
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.tui.app import MonitorApp
from sage.tui.data import (
    CheckpointView,
    Collector,
    DaemonView,
    EmbeddingView,
    EngineView,
    Freshness,
    GatewayView,
    JobView,
    OperatorView,
    Quantiles,
    RouteView,
    Snapshot,
    StackView,
    SystemView,
)


class Clock:
    """Time that moves only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Daemon:
    """A real HTTP server that says what the test lets it say."""

    name: str
    kind: str
    metrics: str = ""
    health: dict[str, str] = field(default_factory=lambda: {"status": "ok"})
    status: int = 200
    metrics_status: int = 200
    hold: threading.Event | None = None
    asked: int = 0
    server: ThreadingHTTPServer | None = None
    open: list[socket.socket] = field(default_factory=list)

    def start(self, port: int = 0) -> Daemon:
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                daemon.open.append(self.connection)

            def do_GET(self) -> None:
                daemon.asked += 1
                if daemon.hold is not None:
                    daemon.hold.wait(10)
                health = self.path == "/health"
                body = (json.dumps(daemon.health) if health else daemon.metrics).encode()
                self.send_response(daemon.status if health else daemon.metrics_status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that go away are part of the tests."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Vanish as a killed process does: nothing listens, open connections break."""
        if self.hold is not None:
            self.hold.set()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        while self.open:
            with contextlib.suppress(OSError):
                self.open.pop().shutdown(socket.SHUT_RDWR)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path) -> SageHome:
    return SageHome(tmp_path / ".sage").ensure()


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    """Start a daemon: ``daemon("engine", "llm", metrics=…)``."""
    started: list[Daemon] = []

    def start(name: str, kind: str, **said: Any) -> Daemon:
        started.append(Daemon(name, kind, **said).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def child() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a real process that does nothing."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def record(home: SageHome) -> Callable[..., None]:
    """Write daemon.json for daemons: ``record(engine, gateway, pids={"engine": 42}, supervised=True)``."""

    def identity(pid: int | None) -> dict[str, Any]:
        who = ProcessIdentity.current() if pid is None else ProcessIdentity.of(pid)
        assert who is not None
        return who._asdict()

    def write(*daemons: Daemon, pids: dict[str, int] | None = None, **extra: Any) -> None:
        entries = {
            one.name: {
                "name": one.name,
                "kind": one.kind,
                "state": "ready",
                "host": "127.0.0.1",
                "port": one.port,
                "url": one.url,
                "model": "sage-builtin" if one.kind == "llm" else "",
                "restarts": 0,
                "started_at": time.time() - 100,
                "ready_at": time.time() - 99,
                "log": str(home.logs / f"{one.name}.log"),
                "last_error": "",
                "exit_code": None,
                **identity((pids or {}).get(one.name)),
                **extra,
            }
            for one in daemons
        }
        supervisor = {**identity(None), "started_at": time.time()}
        content = {"version": 1, "supervisor": supervisor, "daemons": entries, "notes": []}
        home.daemon_json.write_text(json.dumps(content))

    return write


_TEXT = re.compile(r'<text class="[^"]*" x="([\d.]+)"[^>]*clip-path="url\(#[^"]*-line-(\d+)\)"[^>]*>(.*?)</text>')


@pytest.fixture
def screen_text() -> Callable[[App[Any]], str]:
    """What an app shows now, as lines of text, read out of its exported screenshot."""

    def read(app: App[Any]) -> str:
        width, height = app.size
        cells = [[" "] * width for _ in range(height)]
        for x, row, escaped in _TEXT.findall(app.export_screenshot()):
            start = round(float(x) / 12.2)
            for offset, character in enumerate(html.unescape(escaped).replace("\xa0", " ")):
                if start + offset < width:
                    cells[int(row)][start + offset] = character
        return "\n".join("".join(row).rstrip() for row in cells) + "\n"

    return read


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Let an app run until something holds: ``await eventually(pilot, lambda: …)``."""

    async def wait(pilot: Pilot[Any], holds: Callable[[], Any], within: float = 10.0) -> None:
        deadline = time.monotonic() + within
        while not holds():
            assert time.monotonic() < deadline, "it did not come to hold"
            await pilot.pause(0.05)

    return wait


class StillCollector(Collector):
    """A collector that sees what it is told: pictures of a screen need a world that stands still."""

    def __init__(self, home: SageHome, *snapshots: Snapshot) -> None:
        super().__init__(home)
        self.snapshots = list(snapshots)
        self.looks = 0

    def collect(self) -> Snapshot:
        """The next snapshot; the last one for ever."""
        self.looks += 1
        return self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]


NOW = 1_800_000_000.0


def _wave(length: int, top: float) -> tuple[float, ...]:
    return tuple(round(top * abs((i % 16) - 8) / 8, 3) for i in range(length))


def _daemons() -> tuple[DaemonView, ...]:
    def one(name: str, kind: str, **more: Any) -> DaemonView:
        known: dict[str, Any] = {"state": "ready", "uptime_s": 4000.0, "cpu": 0.02, "rss": 200 << 20, "health": "ok"}
        return DaemonView(name, kind, **(known | more))

    return (
        one("gateway", "gateway", pid=4101, port=8889, url="http://127.0.0.1:8889"),
        one("engine", "llm", pid=4102, port=8001, cpu=1.31, rss=900 << 20, model="sage-builtin", restarts=1),
        one("embedding", "embedding", pid=None, port=8090, state="dead", uptime_s=None, cpu=None, rss=None,
            health="not running", last_error="killed by signal 9", exit_code=-9),
    )  # fmt: skip


def _jobs() -> tuple[JobView, ...]:
    def one(name: str, kind: str, done: int, rate: float, busy: float, queue: int, errors: int = 0) -> OperatorView:
        idle, blocked = (0.02, 0.81) if kind == "source" else (0.14, 0.0)
        end: dict[str, Any] = {"lag_s": 4.2, "state_bytes": 3 << 20, "latency_p99": 0.0412} if queue else {}
        return OperatorView(name, kind, done, done, errors, queue, rate, busy, idle, blocked, **end)

    operators = (one("docs", "source", 1210, 41.0, 0.03, 0), one("embed", "map", 1208, 40.6, 0.86, 12, 3))
    kept = CheckpointView(12, "completed", NOW - 4, 0.31, 1 << 20, 40 << 20, 2)
    project, start = "/home/me/my-project", NOW - 600
    return (
        JobView("j3", "llm-pipeline", f"{project}/pipeline.py", "running", 4200, NOW - 184, 184.0, 1210, 905, 2, "",
                31.4, operators, _wave(40, 40.0), kept),
        JobView("j2", "broken", f"{project}/other.py", "failed", 4150, start, 1.2, 7, 3, 1,
                "operator 'split' (other.py:12): ZeroDivisionError: division by zero", 2.5),
        JobView("j1", "minimal", f"{project}/minimal.py", "finished", 4140, start, 10.0, 100, 100, 1, "", 10.0),
    )  # fmt: skip


@pytest.fixture
def busy() -> Snapshot:
    """A stack at work: two daemons up, one dead, three pipelines."""
    fast = Quantiles(0.0312, 0.0821, 0.0975, 400, 60.0)
    slow = Quantiles(0.155, 0.835, 1.95, 400, 60.0)
    return Snapshot(
        taken_at=NOW,
        home="/home/me/my-project/.sage",
        system=SystemView(0.42, 8, 1.25, 5 << 30, 16 << 30, 40 << 30, (), _wave(60, 0.6), _wave(60, 0.3)),
        stack=StackView(4100, True, _daemons()),
        engines=(
            EngineView("engine", "sage-builtin", "ready", 3, 1, 0.38, 0.41, 75.9, 34.2, 90_000, 25_590,
                       (("length", 3.0), ("stop", 555.0)), fast, Quantiles(0.0071, 0.0204, 0.0241, 400, 60.0),
                       _wave(60, 40.0), _wave(60, 0.5), Freshness(0.2)),
        ),
        gateway=GatewayView("ready", 17.7, 859, 13, 0.008, 0, 2, 0, slow, fast,
                            (RouteView("/v1/chat/completions", 9.42, 500, slow),
                             RouteView("/v1/embeddings", 8.3, 359, fast)),
                            _wave(60, 20.0), (), Freshness(0.2)),
        embeddings=(
            EmbeddingView("embedding", "hash", "dead", None, 1678, 4.2, fast, _wave(60, 30.0),
                          Freshness(12.0, True, "not running")),
        ),
        jobs=_jobs(),
    )  # fmt: skip


@pytest.fixture
def nothing() -> Snapshot:
    """A home in which nothing has ever run."""
    system = SystemView(0.05, 8, 0.1, 4 << 30, 16 << 30, 40 << 30)
    return Snapshot(taken_at=NOW, home="/home/me/my-project/.sage", system=system)


@pytest.fixture
def monitor(home: SageHome) -> Callable[..., MonitorApp]:
    """An app that shows the given snapshots, with a clock that stands still one second after them."""

    def make(*snapshots: Snapshot, wall: Callable[[], float] = lambda: NOW + 1, **options: Any) -> MonitorApp:
        return MonitorApp(home, collector=StillCollector(home, *snapshots), wall=wall, **options)

    return make

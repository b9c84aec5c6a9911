"""A tiny real daemon for tests of the supervisor, and a `.sage/` to run it in.

Its behaviour is read from a file at every request, so a test can change it while it runs: "ok", "hang" (accepts, never
answers), "sick" (503 unhealthy), "starting" (503). At its start: "exit" (prints and ends with code 3), "deaf" (never
listens), "stubborn" (ignores SIGTERM and starts a child that does too).
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus, read_status
from sage.supervisor import DaemonSpec, SupervisorClient

SCRIPT = r"""
import http.server, os, pathlib, signal, subprocess, sys, threading, time
port, mode = int(sys.argv[1]), pathlib.Path(sys.argv[2])
print("starting with api_key=sk-verysecret1", flush=True)
first = mode.read_text()
if first == "exit":
    print("cannot load the model", flush=True)
    sys.exit(3)
if first == "deaf":
    time.sleep(600)
if first == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
else:
    def bye(*_):
        mode.with_suffix(".bye").write_text(os.environ.get("TINY_SECRET", ""))
        os._exit(0)
    signal.signal(signal.SIGTERM, bye)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        now = mode.read_text()
        if now == "hang":
            time.sleep(600)
        code = {"ok": 200, "stubborn": 200}.get(now, 503)
        body = b'{"status": "%s", "reason": "told so"}' % {"sick": b"unhealthy"}.get(now, b"starting")
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
server.daemon_threads = True
server.serve_forever()
"""


class TinyStack:
    """A `.sage/`, tiny daemons in it, and ways to change, kill and count them."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.home = SageHome(folder / ".sage")
        self.client = SupervisorClient(self.home)
        self._folder = folder
        self._free_port = free_port
        (folder / "tiny.py").write_text(SCRIPT)

    def spec(self, name: str = "engine", kind: str = "llm", mode: str = "ok", **more: object) -> DaemonSpec:
        """The specification of a tiny daemon, and its first behaviour."""
        self.behave(name, mode)
        port = self._free_port()
        argv = (sys.executable, str(self._folder / "tiny.py"), str(port), str(self._folder / f"{name}.mode"))
        settings: dict[str, object] = {"ready_timeout_s": 30.0, "stop_grace_s": 5.0, **more}
        return DaemonSpec(name, kind, argv, "127.0.0.1", port, **settings)  # type: ignore[arg-type]

    def behave(self, name: str, mode: str) -> None:
        """Change what a daemon does from now on."""
        new = self._folder / f"{name}.new"
        new.write_text(mode)
        new.replace(self._folder / f"{name}.mode")

    def farewell(self, name: str) -> str | None:
        """What a daemon wrote when it was asked to stop: its TINY_SECRET; None: it was not asked."""
        path = self._folder / f"{name}.bye"
        return path.read_text() if path.exists() else None

    def now(self, name: str = "engine") -> DaemonStatus:
        daemon = read_status(self.home).daemon(name)
        assert daemon is not None
        return daemon

    def kill_supervisor(self) -> int:
        """kill -9, and wait until it is gone."""
        pid = read_status(self.home).supervisor_pid
        assert pid is not None
        kill(pid)
        return pid

    def processes(self) -> list[psutil.Process]:
        """Everything that lives for this `.sage/`: the supervisor, daemons, their children."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("SAGE_HOME") == str(self.home.root)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def kill(pid: int) -> None:
    """kill -9, and wait until the process is gone."""
    identity = ProcessIdentity.of(pid)
    assert identity is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not identity.alive(), "the killed process is gone")


def until(true: Callable[[], bool], what: str, within: float = 30.0) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)


@contextmanager
def tiny_stack(folder: Path, free_port: Callable[[], int]) -> Iterator[TinyStack]:
    """A stack whose processes are all killed at the end, whatever the test did."""
    stack = TinyStack(folder, free_port)
    try:
        yield stack
    finally:
        for process in stack.processes():
            process.kill()

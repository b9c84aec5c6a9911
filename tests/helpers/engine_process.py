"""A real `sage-engine` process and a client for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass
class Server:
    """A running `sage-engine` and a client for it."""

    process: subprocess.Popen[str]
    http: httpx.Client
    log: Path

    @property
    def url(self) -> str:
        return str(self.http.base_url)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"sage_engine_{name}"))

    def health(self) -> int:
        try:
            return self.http.get("/health").status_code
        except httpx.TransportError:
            return 0


def launch(home: Path, port: int, *options: str, variables: Mapping[str, str] | None = None) -> Server:
    """Start one; it loads its model meanwhile."""
    log = home / f"engine-{port}.log"
    environment = {**os.environ, "SAGE_HOME": str(home / ".sage")}
    for name in ("SAGE_ENGINE_MODEL", "SAGE_ENGINE_API_KEY"):
        environment.pop(name, None)
    environment |= variables or {}
    with log.open("w") as file:
        argv = [sys.executable, "-m", "sagellm_core.engine_server", "--port", str(port), *options]
        process = subprocess.Popen(argv, stdout=file, stderr=file, text=True, env=environment, cwd=home)
    return Server(process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60), log)


def end(server: Server) -> None:
    server.http.close()
    if server.process.poll() is None:
        server.process.kill()
    server.process.wait()


@contextmanager
def serving(home: Path, *options: str, variables: Mapping[str, str] | None = None) -> Iterator[Server]:
    """One that is ready, on a free port; it is killed in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = launch(home, port, *options, variables=variables)
    try:
        deadline = time.monotonic() + 90
        while server.health() != 200:
            assert server.process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        end(server)

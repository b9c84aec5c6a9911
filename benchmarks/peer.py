"""One peer's process: asked something, frozen while others run, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.environments import cache_folder, python_of

_SHARED = Path(__file__).parent / "peers"


class PeerFailedError(Exception):
    """A peer ended, was silent for too long, or said that it cannot; the message is for the report.

    `alive`: it can be asked again.
    """

    def __init__(self, message: str, *, alive: bool = False) -> None:
        super().__init__(message)
        self.alive = alive


class PeerProcess:
    """A child process that speaks `peers/wire.py`. It is frozen (SIGSTOP) except while it is asked something.

    `script` runs in the environment of that name, with `environ` over this process's variables. Raises
    EnvironmentUnavailableError where the environment cannot be made.
    """

    def __init__(self, name: str, environment: str, script: Path, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        logs = cache_folder() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(_SHARED), os.environ.get("PYTHONPATH"))))
        with open(logs / f"{name.replace(' ', '-').replace('/', '-')}.log", "wb") as log:
            self._process = subprocess.Popen(
                [str(python_of(environment)), str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": path} | dict(environ or {}),
                start_new_session=True,
            )
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, *, timeout: float = 180, **options: Any) -> dict[str, Any]:
        """Call the peer's method `what`: its answer with `result`, `wall`, `cpu`, `rss`. Raises PeerFailedError."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": what, **options}).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(timeout))
        except OSError as error:
            raise PeerFailedError(f"ended: {error}") from error
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise PeerFailedError(answer["error"], alive=True)
        return answer

    def close(self) -> None:
        """End the process and what it started, whatever they do."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([pipe], [], [], timeout)[0]:
                raise PeerFailedError(f"no answer within {timeout:.0f} s")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise PeerFailedError(f"ended with exit code {self._process.wait()}; see {cache_folder() / 'logs'}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

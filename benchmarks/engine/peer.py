"""One peer's process: started with a model, asked to run prompts, stopped while others run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.environments import cache_folder, python_of

_SCRIPTS = Path(__file__).parent / "peers"


class PeerFailedError(Exception):
    """A peer ended, was silent for too long, or said that it cannot; the message is for the report.

    `alive`: it can be asked again.
    """

    def __init__(self, message: str, *, alive: bool = False) -> None:
        super().__init__(message)
        self.alive = alive


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario, once: tokens that came, seconds of wall and of processor time of the peer's process."""

    tokens: int
    wall: float
    cpu: float


class PeerProcess:
    """A child process that speaks `peers/wire.py`. It is frozen (SIGSTOP) except while it is asked something."""

    def __init__(self, name: str, environment: str, script: str) -> None:
        self.name = name
        logs = cache_folder() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with open(logs / f"{name.replace(' ', '-').replace('/', '-')}.log", "wb") as log:
            self._process = subprocess.Popen(
                [str(python_of(environment)), str(_SCRIPTS / f"{script}.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ
                | {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,
            )
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, **options: Any) -> tuple[float, str]:
        """Seconds until it was ready, imports left out, and its note."""
        answer = self._ask({"do": "load", **options}, timeout=180)
        return float(answer["seconds"]), str(answer["note"])

    def run(self, prompts: list[list[int]], max_tokens: int, *, timeout: float = 180) -> Run:
        """Run prompts at once. Raises PeerFailedError, also when another number of tokens came than was asked for."""
        answer = self._ask({"do": "run", "prompts": prompts, "max_tokens": max_tokens}, timeout)
        run = Run(int(answer["tokens"]), float(answer["wall"]), float(answer["cpu"]))
        if run.tokens != len(prompts) * max_tokens:
            raise PeerFailedError(f"gave {run.tokens} tokens instead of {len(prompts) * max_tokens}", alive=True)
        return run

    def close(self) -> None:
        """End the process, whatever it does."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _ask(self, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(timeout))
        except OSError as error:
            raise PeerFailedError(f"ended: {error}") from error
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise PeerFailedError(answer["error"], alive=True)
        return answer

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

"""Fixtures shared by every folder of tests: an isolated home, the real command, a whole running stack."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

SAGE = pathlib.Path(sys.executable).with_name("sage")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background (`make test &`) with Ctrl-C ignored, children inherit that, and what
    # waits for a child to stop would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_of(home: pathlib.Path) -> list[psutil.Process]:
    """Every living process that was started for this SAGE_HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SAGE_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_until(true: Callable[[], bool], *, within: float = 20.0, what: str = "") -> None:
    """Poll a real process until the condition holds; fail with ``what`` after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what or true}")
        time.sleep(0.05)


@dataclass(slots=True)
class Sage:
    """The real ``sage`` command with its own SAGE_HOME and working folder."""

    home: pathlib.Path
    cwd: pathlib.Path

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SAGE_", "HF_", "OPENAI_"))}
        return kept | {"SAGE_HOME": str(self.home), "NO_COLOR": "1"}

    def __call__(self, *argv: str, check: bool = True, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [SAGE, *argv], capture_output=True, text=True, env=self.env, cwd=self.cwd, timeout=timeout, check=False
        )
        if check:
            assert done.returncode == 0, f"sage {' '.join(argv)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.home)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a port nobody listens on at the moment."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def sage(tmp_path: pathlib.Path) -> Iterator[Sage]:
    """The command in an empty folder; whatever it started is killed at the end."""
    home = tmp_path / ".sage"
    yield Sage(home=home, cwd=tmp_path)
    for process in processes_of(home):
        try:
            process.kill()
        except psutil.Error:
            continue


@pytest.fixture
def until() -> Callable[..., None]:
    """``wait_until`` as a fixture, for tests that poll real processes."""
    return wait_until

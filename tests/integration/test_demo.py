"""The main job end to end, as ``make demo`` runs it after set-up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]


def demo_env(tmp_path: Path) -> dict[str, str]:
    """The demo makes its folder in ``tmp_path``, so that its processes can be told from all others."""
    return os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}


def left_behind(tmp_path: Path) -> list[str]:
    """The commands of processes whose state folder lies under ``tmp_path``."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("SAGE_HOME", "")
            if home.startswith(str(tmp_path.resolve())) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.spec("X2", "X3", "X4", "X6", "S4", "E9")
def test_the_demo_answers_at_least_eight_of_ten_and_leaves_nothing_behind(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(DEMO, env=demo_env(tmp_path), capture_output=True, text=True, timeout=140, check=False)
    took = time.monotonic() - started

    assert done.returncode == 0, done.stdout + done.stderr
    verdict = re.search(r"(\d+) of 10 answered rightly, with the right source", done.stdout)
    assert verdict is not None
    assert int(verdict.group(1)) >= 8
    assert done.stdout.count("\nQ: ") + done.stdout.startswith("Q: ") == 10
    assert left_behind(tmp_path) == []
    assert not list(tmp_path.glob("sage-demo-*"))
    assert took < 120  # a quiet machine needs less than 60


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(150)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_what_it_started(tmp_path: Path, signum: signal.Signals) -> None:
    with subprocess.Popen(
        DEMO,
        env=demo_env(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "sage run local" in line:
                break
        os.killpg(demo.pid, signum)  # as a terminal does: to every process of the foreground group
        output = demo.stdout.read()
        code = demo.wait(timeout=60)

    assert code == 130, output
    assert left_behind(tmp_path) == []
    assert not list(tmp_path.glob("sage-demo-*"))


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_demo_whose_output_nobody_reads_stops_what_it_started(tmp_path: Path) -> None:
    """`make demo | head` ends early, but not without its last step."""
    with subprocess.Popen(
        DEMO, env=demo_env(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        for line in demo.stdout:
            if "sage llm serve" in line:
                break
        demo.stdout.close()
        complaints = demo.stderr.read()
        code = demo.wait(timeout=60)

    assert code == 1
    assert "Traceback" not in complaints
    assert left_behind(tmp_path) == []
    assert not list(tmp_path.glob("sage-demo-*"))

"""kill -9 of a job with checkpoints, at every phase and at any moment: the output equals the undisturbed run's.

`SAGE_KILLS=200 make test-slow` kills two hundred times (default: 20).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.spec("K6", "R2"), pytest.mark.timeout(600)]

JOB = Path(__file__).parent / "exactly_once_job.py"
SAGE = Path(sys.executable).parent / "sage"
NUMBERS = 12_000
PLAIN = "{}"
UNALIGNED = '{"checkpoint.unaligned": true, "channel.capacity": 2}'
ROCKSDB = '{"state.backend": "rocksdb"}'
PHASES = ["complete", "committed", "restore"]
MORE_PHASES = ["barrier", "snapshot", "snapshotted", "manifest", "prune", "prepare", "commit", "write"]


class Runs:
    """Runs the job again and again in one project."""

    def __init__(self, folder: Path, *, pause: float, job: str = "rolling", config: str = "{}") -> None:
        self.output = folder / "out"
        self.output.mkdir(parents=True)
        self._job = job
        self._pause = pause
        self._config = config
        self._home = folder / "home"

    def __call__(
        self,
        parallelism: int,
        *,
        restore: str | None = "latest",
        kill: str = "",
        after: float | None = None,
        interrupt: bool = False,
    ) -> int:
        """The exit code; `kill` names a phase, `after` kills after so many seconds, `interrupt` is a Ctrl-C as soon as
        there is output."""
        arguments = [str(SAGE), "run", "local", str(JOB)]
        if restore is not None:
            arguments += ["--restore", restore]
        arguments += ["--", self._job, str(self.output), str(NUMBERS), str(parallelism), str(self._pause)]
        environment = os.environ | {"SAGE_HOME": str(self._home), "KILL": kill, "CONFIG": self._config}
        process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        timer = threading.Timer(after, process.kill) if after is not None else None
        if timer is not None:
            timer.start()
        while interrupt and process.poll() is None:
            time.sleep(0.01)
            if self.lines:
                process.send_signal(signal.SIGINT)
                break
        self.said, _ = process.communicate(timeout=120)
        if timer is not None:
            timer.cancel()
            timer.join()
        return process.returncode

    def finish(self, parallelism: int) -> None:
        """Run undisturbed to the end."""
        assert self(parallelism) == 0, self.said

    @property
    def lines(self) -> list[str]:
        """The committed output: files in the order of their checkpoints."""
        files = sorted(self.output.glob("out-*"))
        return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """What a run of that job gives that nobody disturbs."""

    @cache
    def lines(job: str) -> list[str]:
        runs = Runs(tmp_path_factory.mktemp(job), pause=0.0, job=job)
        assert runs(1, restore=None) == 0, runs.said
        assert len(runs.lines) == (NUMBERS if job == "rolling" else 97 * NUMBERS // 1500)
        return runs.lines

    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase", [*PHASES, *(pytest.param(phase, marks=pytest.mark.exhaustive) for phase in MORE_PHASES)]
)
def test_a_kill_in_each_phase(phase: str, undisturbed: Callable[[str], list[str]], tmp_path: Path) -> None:
    """Killed in the phase in two runs one after the other, then left alone."""
    runs = Runs(tmp_path, pause=0.005)
    assert runs(1, kill="commit:2" if phase == "restore" else f"{phase}:3") == -signal.SIGKILL, runs.said
    assert runs(1, kill=f"{phase}:2") == -signal.SIGKILL, runs.said
    runs.finish(1)
    assert runs.lines == undisturbed("rolling")


@pytest.mark.slow
@pytest.mark.spec("X4")
def test_ctrl_c_makes_a_last_checkpoint(undisturbed: Callable[[str], list[str]], tmp_path: Path) -> None:
    runs = Runs(tmp_path, pause=0.02)
    assert runs(1, interrupt=True) == 130, runs.said
    assert "exactly-once cancelled" in runs.said
    assert "Traceback" not in runs.said
    assert len(runs.lines) < NUMBERS
    runs.finish(1)
    assert "continues from checkpoint" in runs.said
    assert runs.lines == undisturbed("rolling")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("job", "parallelism", "config"),
    [
        ("rolling", 1, PLAIN),
        ("windows", 2, PLAIN),
        ("rolling", 2, UNALIGNED),
        ("windows", 2, UNALIGNED),
        ("windows", 2, ROCKSDB),
    ],
    ids=["one-subtask", "windows", "unaligned", "unaligned-windows", "rocksdb-windows"],
)
def test_kills_at_any_moment(
    job: str, parallelism: int, config: str, undisturbed: Callable[[str], list[str]], tmp_path: Path
) -> None:
    expected = undisturbed(job)
    kills = -(-int(os.environ.get("SAGE_KILLS", "20")) // 5)
    chance = random.Random(parallelism)
    done, round_number = 0, 0
    while done < kills:
        round_number += 1
        runs = Runs(tmp_path / f"round-{round_number}", pause=0.008, job=job, config=config)
        while done < kills and runs(parallelism, after=chance.uniform(0.3, 1.3)) == -signal.SIGKILL:
            done += 1
        runs.finish(parallelism)
        assert sorted(runs.lines) == sorted(expected)
        assert parallelism > 1 or runs.lines == expected

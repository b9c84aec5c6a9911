"""kill -9 in jobs with worker processes: of a worker, whose job starts again; of the master, whose workers end too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.spec("K6", "R2"), pytest.mark.timeout(300)]

JOB = Path(__file__).parent / "exactly_once_job.py"
SAGE = Path(sys.executable).parent / "sage"
NUMBERS = 12_000
WORKER = "sage.core.runtime.processes.worker"
TWO = {"execution.runtime": "processes", "execution.processes": 2}
AGAIN = TWO | {"restart.strategy": "fixed-delay", "restart.attempts": "unlimited", "restart.delay": 0}


def workers(master: int) -> list[psutil.Process]:
    """The worker processes of a job."""
    try:
        return [child for child in psutil.Process(master).children() if WORKER in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


class Run:
    """The job in a process of its own."""

    def __init__(self, folder: Path, job: str, config: dict[str, object], pause: float) -> None:
        self.output = folder / "out"
        self.output.mkdir(parents=True)
        arguments = [str(SAGE), "run", "local", str(JOB), "--", job, str(self.output), str(NUMBERS), "2", str(pause)]
        environment = os.environ | {"SAGE_HOME": str(folder / "home"), "CONFIG": json.dumps(config), "KILL": ""}
        self.process = subprocess.Popen(
            arguments,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> str:
        said, _ = self.process.communicate(timeout=200)
        return said

    @property
    def lines(self) -> list[str]:
        files = self.output.glob("out-*")
        return sorted(line for file in files for line in file.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the job gives on threads."""
    run = Run(tmp_path_factory.mktemp("undisturbed"), "windows", {}, 0.0)
    said = run.finish()
    assert run.process.returncode == 0, said
    return run.lines


@pytest.mark.parametrize(
    "config", [{}, pytest.param({"checkpoint.unaligned": True, "channel.capacity": 2}, marks=pytest.mark.exhaustive)]
)
def test_killed_workers_lose_nothing_and_repeat_nothing(
    config: dict[str, object], undisturbed: list[str], tmp_path: Path
) -> None:
    run = Run(tmp_path, "windows", AGAIN | config, 0.01)
    chance, killed = random.Random(7), 0
    while killed < 3 and run.process.poll() is None:
        until(lambda: len(workers(run.process.pid)) == 2 or run.process.poll() is not None)
        time.sleep(chance.uniform(0.4, 1.2))
        for worker in workers(run.process.pid)[chance.randrange(2) :][:1]:
            worker.kill()
            killed += 1
            until(lambda gone=worker: not gone.is_running() or gone.status() == psutil.STATUS_ZOMBIE)  # type: ignore[misc]
    said = run.finish()
    assert run.process.returncode == 0, said
    assert killed, "the job was over before"
    assert "was killed by SIGKILL" in said
    assert "starts again from" in said
    assert run.lines == undisturbed


def test_without_a_restart_strategy_a_killed_worker_fails_the_job(tmp_path: Path) -> None:
    run = Run(tmp_path, "windows", TWO, 0.02)
    until(lambda: len(workers(run.process.pid)) == 2)
    both = workers(run.process.pid)
    both[0].kill()
    said = run.finish()
    assert run.process.returncode == 1, said
    assert "was killed by SIGKILL" in said
    until(lambda: not any(worker.is_running() for worker in both))


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_workers_end_with_their_master(how: signal.Signals, tmp_path: Path) -> None:
    run = Run(tmp_path, "windows", TWO, 0.02)
    until(lambda: len(workers(run.process.pid)) == 2)
    until(lambda: run.lines)
    both = workers(run.process.pid)
    run.process.send_signal(how)
    run.finish()
    until(lambda: not any(worker.is_running() for worker in both))


def test_ctrl_c_makes_a_last_checkpoint(tmp_path: Path) -> None:
    """To the whole process group, as a terminal sends it: the workers leave it to the master."""
    run = Run(tmp_path, "windows", TWO, 0.02)
    until(lambda: run.lines)
    both = workers(run.process.pid)
    os.killpg(run.process.pid, signal.SIGINT)
    said = run.finish()
    assert run.process.returncode == 130, said
    assert "exactly-once cancelled" in said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert not any(worker.is_running() for worker in both)


def test_a_reader_that_goes_away_ends_the_job_in_silence(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "from sage.core.api import LocalEnvironment\n"
        f"env = LocalEnvironment('many', {TWO!r})\n"
        "env.from_source(lambda: iter(range(10**9))).print()\n"
        "env.submit()\n"
    )
    ended = subprocess.run(
        f"{SAGE} run local {script} | head -3",
        shell=True,
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"SAGE_HOME": str(tmp_path / "home")},
    )
    assert ended.stdout == "0\n1\n2\n"
    assert "Traceback" not in ended.stderr
    assert "Broken" not in ended.stderr

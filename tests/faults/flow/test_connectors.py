"""kill -9 of jobs from a file into files and tables: nothing twice, nothing lost, nothing left over (SPEC K10)."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.spec("K10", "K6"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
JOB = Path(__file__).parent / "connectors_job.py"
SAGE = Path(sys.executable).parent / "sage"
NUMBERS = 6000


class Project:
    """Runs one job again and again."""

    def __init__(self, folder: Path, kind: str, pause: float = 0.01) -> None:
        self.kind = kind
        self.output = folder / "out"
        self._input = folder / "in"
        self._home = folder / "home"
        self._pause = pause
        self._input.mkdir()
        for part in range(6):
            numbers = range(part * NUMBERS // 6, (part + 1) * NUMBERS // 6)
            (self._input / f"{part}.txt").write_text("".join(f"{n}\n" for n in numbers))
        if kind in ("sql", "key"):
            self.query("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT)")

    def run(self, parallelism: int = 1, *, kill: str = "", after: float | None = None, restore: bool = True) -> int:
        """The exit code."""
        arguments = [str(SAGE), "run", "local", str(JOB), *(["--restore", "latest"] if restore else []), "--"]
        arguments += [self.kind, str(self._input), str(self.output), str(parallelism), str(self._pause)]
        environment = os.environ | {"SAGE_HOME": str(self._home), "KILL": kill, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        timer = threading.Timer(after if after is not None else 200, process.kill)
        timer.start()
        self.said, _ = process.communicate()
        timer.cancel()
        timer.join()
        return process.returncode

    def finish(self, parallelism: int = 1) -> None:
        """Run undisturbed to the end; then the output is whole."""
        assert self.run(parallelism) == 0, self.said
        assert sorted(self.numbers()) == list(range(NUMBERS))

    def numbers(self) -> list[int]:
        """What readers of the output see now."""
        if self.kind in ("sql", "key"):
            return [n for (n,) in self.query("SELECT n FROM numbers")]
        if self.kind == "single":
            return [int(line) for line in self.output.read_text().splitlines()]
        files = [path for path in self.output.iterdir() if not path.name.startswith(".")]
        if self.kind == "parquet":
            from pyarrow import parquet

            return [n for path in files for n in parquet.read_table(path)["n"].to_pylist()]
        texts = [path.read_text() for path in files]
        assert all(text.endswith("\n") for text in texts)
        return [int(line) for text in texts for line in text.splitlines()]

    def leftovers(self) -> list[str]:
        """What a finished job must not leave."""
        if self.kind == "sql":
            return [str(row) for row in self.query("SELECT * FROM sage_staging_numbers")]
        return [path.name for path in self.output.iterdir() if path.name.startswith(".")]

    def query(self, statement: str) -> list[tuple[int]]:
        database = sqlite3.connect(self.output, timeout=30)
        with database:
            rows = database.execute(statement).fetchall()
        database.close()
        return rows


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    return lambda *arguments, **options: Project(tmp_path, *arguments, **options)


def _more(*phases: str) -> list[object]:
    return [pytest.param(phase, marks=pytest.mark.exhaustive) for phase in phases]


@pytest.mark.parametrize("phase", ["prepared", "committed", *_more("write", "prepare", "commit", "recover")])
def test_files_after_a_kill_in_each_phase(phase: str, project: Callable[..., Project]) -> None:
    job = project("text")
    count = 40 if phase == "write" else 4
    if phase == "recover":
        assert job.run(kill="committed:4") == -signal.SIGKILL, job.said
        count = 1
    assert job.run(kill=f"{phase}:{count}") == -signal.SIGKILL, job.said
    seen = job.numbers()
    assert len(set(seen)) == len(seen) < NUMBERS
    job.finish()
    assert job.leftovers() == []
    assert set(seen) <= set(job.numbers())


@pytest.mark.parametrize("phase", ["sql-committed", *_more("sql-prepared", "sql-commit")])
def test_a_table_after_a_kill_in_each_phase(phase: str, project: Callable[..., Project]) -> None:
    job = project("sql")
    assert job.run(kill=f"{phase}:4") == -signal.SIGKILL, job.said
    assert 0 < len(job.numbers()) < NUMBERS
    job.finish()
    assert job.leftovers() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["text", "single", "parquet", "sql", "key"])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_kills_at_any_moment(kind: str, parallelism: int, project: Callable[..., Project]) -> None:
    """Killed again and again, with another parallelism each time; then left alone."""
    job = project(kind, pause=0.1)
    chance = random.Random(f"{kind}{parallelism}")
    kills = sum(job.run(chance.randint(1, 3), after=chance.uniform(0.6, 1.6)) == -signal.SIGKILL for _ in range(4))
    assert kills > 0
    job.finish(parallelism)
    if kind in ("text", "parquet", "sql"):
        assert job.leftovers() == []


@pytest.mark.exhaustive
def test_a_job_that_begins_anew_begins_with_no_output(project: Callable[..., Project]) -> None:
    job = project("text", pause=0.0)
    job.finish()
    assert job.run(2, restore=False) == 0, job.said
    assert sorted(job.numbers()) == list(range(NUMBERS))

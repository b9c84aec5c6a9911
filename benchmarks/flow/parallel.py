"""Two worker processes for a function that computes all the time, beside one thread."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.findings import Finding
from sage.core.api import LocalEnvironment

_RECORDS = 2_000
_ROUNDS = 3
_PROCESSES: dict[str, Any] = {"execution.runtime": "processes"}


def measure() -> tuple[list[Finding], list[str]]:
    """Interleaved runs of both; starting the workers is part of the time."""
    one, two = [], []
    for _ in range(_ROUNDS):
        one.append(_run(1, {}))
        two.append(_run(2, _PROCESSES))
    alone, together = min(one), min(two)
    what = "parallelism 2 in processes over 1 thread, a CPU-bound function"
    measured = f"{alone:.2f} / {together:.2f} s (medians {statistics.median(one):.2f} / {statistics.median(two):.2f})"
    return [Finding(what, measured, alone / together, 1.6, at_least=True)], []


def _run(parallelism: int, config: dict[str, Any]) -> float:
    env = LocalEnvironment("bench-parallel", config)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.txt"
        worked = env.from_range(_RECORDS).rebalance().map(_work, parallelism=parallelism)
        worked.map(str, parallelism=1).write_text(lines, parallelism=1)
        started = time.perf_counter()
        env.submit()
        elapsed = time.perf_counter() - started
        found = len(lines.read_text(encoding="utf-8").splitlines())
    if found != _RECORDS:
        raise AssertionError(f"{found} of {_RECORDS} records came")
    return elapsed


def _work(record: int) -> int:
    total = record
    for number in range(40_000):
        total = (total * 31 + number) % 1_000_003
    return total

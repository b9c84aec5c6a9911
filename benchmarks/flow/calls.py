"""Async calls: 1,000 records in flight, each waiting 50 ms; at most 20,000 a second by that alone."""

from __future__ import annotations

import asyncio
import time

from benchmarks.findings import Finding
from sage.core.api import LocalEnvironment

_IN_FLIGHT = 1_000
_WAIT = 0.05
_RECORDS = 40_000


def measure() -> tuple[list[Finding], list[str]]:
    """The rate of the best of three runs."""
    rate = max(_run() for _ in range(3))
    least = 15_000
    what = f"async calls: {_IN_FLIGHT:,} in flight of {1e3 * _WAIT:.0f} ms each, records/s"
    return [Finding(what, f"{rate:,.0f} of {_IN_FLIGHT / _WAIT:,.0f} records/s", rate, least, at_least=True)], []


def _run() -> float:
    async def call(record: int) -> int:
        await asyncio.sleep(_WAIT)
        return record

    out: list[int] = []
    env = LocalEnvironment("bench-calls")
    env.from_range(_RECORDS).async_map(call, capacity=_IN_FLIGHT).sink(out.append)
    started = time.perf_counter()
    env.submit()
    elapsed = time.perf_counter() - started
    if out != list(range(_RECORDS)):
        raise AssertionError("results are missing or out of order")
    return _RECORDS / elapsed

"""State backends: cost of an access, stall at a barrier, memory, and what an incremental checkpoint writes.

    python -m benchmarks.flow.state [access|barrier|memory|increments …] [--keys 10000000]

Without names everything runs, each part in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.findings import Finding
from sage.core.api.state import ValueStateDescriptor
from sage.core.state.base import SnapshotRequest, StateSnapshot
from sage.core.state.handles import keyed_state
from sage.core.state.memory import MemoryKeyedState
from sage.core.state.rocksdb import RocksKeyedState
from sage.core.state.rocksdb.options import RocksSettings, open_database, without_log

BATCH = 1024
COUNT: ValueStateDescriptor[int] = ValueStateDescriptor("count", default=0)


class Checkpoints:
    """Takes snapshots as a job does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.shared = folder / "shared"
        self.shared.mkdir()

    def request(self, previous: StateSnapshot | None = None) -> SnapshotRequest:
        """A request with a folder of its own."""
        number = next(self._numbers)
        own = self._folder / f"chk-{number}"
        own.mkdir()
        return SnapshotRequest(number, own, self.shared, previous)


@contextmanager
def rocks(settings: RocksSettings | None = None) -> Iterator[tuple[RocksKeyedState, Checkpoints]]:
    """An empty backend in RocksDB."""
    with tempfile.TemporaryDirectory() as name:
        backend = RocksKeyedState(0, 127, folder=Path(name) / "local", settings=settings)
        try:
            yield backend, Checkpoints(Path(name))
        finally:
            backend.close()


def counting(backend: Any, keys: list[int]) -> Callable[[], None]:
    """One get and one update of a ValueState for each key, in batches as a task takes them."""
    state = keyed_state(backend, COUNT)
    value, update = state.value, state.update

    def run() -> None:
        for start in range(0, len(keys), BATCH):
            for key in keys[start : start + BATCH]:
                backend.key = key
                update(value() + 1)
            backend.flush_slice()

    return run


def plain_dict(keys: list[int]) -> Callable[[], None]:
    """The same on a dict."""
    counts: dict[int, int] = {}

    def run() -> None:
        for key in keys:
            counts[key] = counts.get(key, 0) + 1

    return run


def bare_rocksdb(keys: list[int], folder: Path) -> Callable[[], None]:
    """The same by RocksDB's get and put for each record."""
    db = open_database(folder, RocksSettings())
    options = without_log()

    def run() -> None:
        for key in keys:
            row = b"%d" % key
            found = db.get(row)
            db.put(row, b"%d" % (int(found or 0) + 1), options)

    return run


def access() -> list[str]:
    """CPU nanoseconds of get + update in the thread, sides interleaved, the best of seven runs after a warm-up."""
    rows = []
    for title, distinct in (("10 k keys", 10_000), ("1 M keys", 1_000_000)):
        keys = [random.randrange(distinct) for _ in range(200_000)]
        with rocks() as (backend, _), tempfile.TemporaryDirectory() as name:
            sides = {
                "dict": plain_dict(keys),
                "memory": counting(MemoryKeyedState(), keys),
                "rocksdb": counting(backend, keys),
                "RocksDB by get and put": bare_rocksdb(keys, Path(name) / "bare"),
            }
            best = dict.fromkeys(sides, float("inf"))
            for turn in range(8):
                for side, run in sides.items():
                    started = time.thread_time()
                    run()
                    if turn:
                        best[side] = min(best[side], (time.thread_time() - started) / len(keys) * 1e9)
        base = best["dict"]
        rows += [f"| get + update, {title} | {side} | {ns:,.0f} ns | {ns / base:.1f}x |" for side, ns in best.items()]
    return rows


def barrier() -> list[str]:
    """With rows from the database's cache, and with the cache that a budget of 4 GiB gives."""
    return _barrier("default cache", RocksSettings()) + _barrier("4 GiB", RocksSettings(cached_rows=1 << 20))


def _barrier(title: str, settings: RocksSettings, seconds: int = 15) -> list[str]:
    rate, durations = _stalls(settings, seconds)
    made = len(durations["stall at the barrier"])
    return [
        f"| {name} p50 / p99, {rate / 1e6:.2f} M dirty keys/s, {made} checkpoints | rocksdb, {title} "
        f"| {1e3 * statistics.median(found):,.1f} / {1e3 * _p99(found):,.1f} ms | |"
        for name, found in durations.items()
    ]


def _stalls(settings: RocksSettings, seconds: int) -> tuple[float, dict[str, list[float]]]:
    """A million distinct keys, each dirty again and again, as fast as it goes; a checkpoint every second.

    Keys a second, and the seconds of each stall at the barrier, of the longest batch between two, of each checkpoint.
    """
    distinct = 1_000_000
    with rocks(settings) as (backend, checkpoints):
        state = keyed_state(backend, COUNT)
        syncs: list[float] = []
        stalls: list[float] = []
        totals: list[float] = []
        previous: list[StateSnapshot | None] = [None]
        pending: threading.Thread | None = None
        done, key, worst = 0, 0, 0.0
        began = time.perf_counter()
        next_checkpoint = began + 1.0
        while (now := time.perf_counter()) < began + seconds:
            if now >= next_checkpoint and (pending is None or not pending.is_alive()):
                stalls.append(worst)
                worst, next_checkpoint = 0.0, now + 1.0
                write = backend.snapshot(checkpoints.request(previous[0]))
                syncs.append(time.perf_counter() - now)
                pending = threading.Thread(target=_finish, args=(write, previous, totals, now))
                pending.start()
            for key in range(done % distinct, done % distinct + BATCH):
                backend.key = key
                state.update(state.value() + 1)
            done += BATCH
            backend.flush_slice()
            worst = max(worst, time.perf_counter() - now)
        rate = done / (time.perf_counter() - began)
        if pending is not None:
            pending.join()
    return rate, {
        "stall at the barrier": syncs,
        "longest batch between barriers": stalls[1:],
        "barrier to complete checkpoint": totals,
    }


def _finish(
    write: Callable[[], StateSnapshot], previous: list[StateSnapshot | None], totals: list[float], began: float
) -> None:
    previous[0] = write()
    totals.append(time.perf_counter() - began)


def _p99(found: list[float]) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * 0.99))]


def memory(keys: int) -> list[str]:
    """As rows of a table."""
    found = memory_numbers(keys)
    title = f"{keys / 1e6:g} M keys"
    written = f"{found['first']:.2f} MiB written; {found['second']:.2f} of {found['size']:.1f}"
    return [
        f"| resident memory, {title} | rocksdb | {found['peak']:,.0f} MiB ({found['before']:,.0f} before) | |",
        f"| writing {title} | rocksdb | {found['rate'] / 1e6:.2f} M keys/s | |",
        f"| checkpoint of {title}: first, then with 5 % changed | rocksdb | {written} | |",
    ]


def memory_numbers(keys: int) -> dict[str, float]:
    """Resident memory (MiB) while that many keys get a value, and while 500 k random ones are counted up afterwards."""
    process = psutil.Process()
    before = process.memory_info().rss
    with rocks() as (backend, checkpoints):
        state = keyed_state(backend, COUNT)
        peak = 0
        started = time.perf_counter()
        for key in range(keys):
            backend.key = key
            state.update(key)
            if key % BATCH == 0:
                backend.flush_slice()
                if key % (64 * BATCH) == 0:
                    peak = max(peak, process.memory_info().rss)
        wrote = time.perf_counter() - started
        first = backend.snapshot(checkpoints.request())()
        counting(backend, [random.randrange(keys) for _ in range(500_000)])()
        second = backend.snapshot(checkpoints.request(first))()
        peak = max(peak, process.memory_info().rss)
    return {
        "peak": peak / 2**20,
        "before": before / 2**20,
        "rate": keys / wrote,
        "first": first.written / 2**20,
        "second": second.written / 2**20,
        "size": second.size / 2**20,
    }


def increments() -> list[str]:
    """What a checkpoint writes, by how much of a state of 2 M keys has changed since the last."""
    rows, keys = [], 2_000_000
    with rocks() as (backend, checkpoints):
        state = keyed_state(backend, COUNT)
        for key in range(keys):
            backend.key = key
            state.update(key)
            if key % BATCH == 0:
                backend.flush_slice()
        previous = backend.snapshot(checkpoints.request())()
        rows.append(f"| checkpoint of 2 M keys: all | rocksdb | {_mib(previous)} | |")
        for share, times in ((0.0, 1), (0.001, 1), (0.01, 20), (0.1, 1)):
            written = 0
            for _ in range(times):
                counting(backend, random.sample(range(keys), int(keys * share)))()
                previous = backend.snapshot(checkpoints.request(previous))()
                written += previous.written
            mean = f"{written / times / 2**20:.2f} MiB written of {previous.size / 2**20:.1f}"
            rows.append(f"| checkpoint of 2 M keys: {share:.1%} changed, mean of {times} | rocksdb | {mean} | |")
    return rows


def _mib(snapshot: StateSnapshot) -> str:
    return f"{snapshot.written / 2**20:.2f} MiB written of {snapshot.size / 2**20:.1f}"


def measure() -> tuple[list[Finding], list[str]]:
    """The stall at the barrier with a million dirty keys a second, and how checkpoints follow what has changed."""
    rate, durations = _stalls(RocksSettings(cached_rows=1 << 20), 10)
    stalls = durations["stall at the barrier"]
    worst = 1e3 * _p99(stalls)
    what = f"barrier p99 in ms, 1 M keys dirty again and again ({rate / 1e6:.2f} M updates/s), checkpoints every second"
    measured = f"{1e3 * statistics.median(stalls):.1f} / {worst:.1f} ms p50 / p99 of {len(stalls)}"
    table = ["## Incremental checkpoints", "", "| what | backend | measured | |", "| --- | --- | --- | --- |"]
    return [Finding(what, measured, worst, 300)], ["\n".join([*table, *increments()])]


def main() -> None:
    """Print the rows of a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="access, barrier, memory, increments")
    parser.add_argument("--keys", type=int, default=10_000_000)
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[str]]] = {
        "access": access,
        "barrier": barrier,
        "memory": lambda: memory(options.keys),
        "increments": increments,
    }
    if not options.parts:
        print("| what | backend | measured | over a dict |\n| --- | --- | --- | --- |", flush=True)
        for part in parts:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.flow.state", part, "--keys", str(options.keys)], check=True
            )
        return
    for part in options.parts:
        print("\n".join(parts[part]()), flush=True)


if __name__ == "__main__":
    main()

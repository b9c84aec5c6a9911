"""Interleaved measurement of two callables, and the report.

Both sides run alternately, so that a noisy neighbour hits both; medians are reported, with CPU time (this process and
its children) beside wall time.
"""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """Median seconds of one side."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours beside a peer, over the same ``units`` of work (records, tokens, requests, starts)."""

    what: str
    unit: str
    units: int
    peer_name: str
    ours: Sample
    peer: Sample

    @property
    def speedup(self) -> float:
        """Peer's wall time over ours: above 1, ours is faster."""
        return self.peer.wall_s / self.ours.wall_s

    @property
    def cpu_ratio(self) -> float:
        """Our CPU time over the peer's: below 1, ours is cheaper."""
        return self.ours.cpu_s / max(self.peer.cpu_s, 1e-9)

    def row(self) -> str:
        """One line of the report's table."""
        ours, peer = self.units / self.ours.wall_s, self.units / self.peer.wall_s
        return (
            f"| {self.what} | {ours:,.0f} {self.unit}/s | {self.peer_name}: {peer:,.0f} {self.unit}/s "
            f"| {self.speedup:.2f}x | {1e3 * self.ours.cpu_s:,.1f} / {1e3 * self.peer.cpu_s:,.1f} ms "
            f"| {self.cpu_ratio:.2f}x |"
        )


def cpu_seconds() -> float:
    """User and system time of this process and of its finished children."""
    rows = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(row.ru_utime + row.ru_stime for row in rows)


def once(work: Callable[[], object]) -> Sample:
    """Run ``work`` once and take its times."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Sample(time.perf_counter() - wall, cpu_seconds() - cpu)


def median(samples: list[Sample]) -> Sample:
    """Element-wise median."""
    return Sample(statistics.median(s.wall_s for s in samples), statistics.median(s.cpu_s for s in samples))


def compare(
    what: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    peer_name: str,
    unit: str,
    units: int = 1,
    repeat: int = 5,
) -> Comparison:
    """Warm both sides once, then run them alternately ``repeat`` times."""
    ours()
    peer()
    mine, theirs = [], []
    for _ in range(repeat):
        mine.append(once(ours))
        theirs.append(once(peer))
    return Comparison(what, unit, units, peer_name, median(mine), median(theirs))


def report(rows: list[Comparison]) -> str:
    """The Markdown report."""
    head = [
        "# Benchmarks",
        "",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores.",
        "Medians of interleaved runs. Speed-up: peer's wall time over ours. CPU: ours / the peer's, for the same work.",
        "",
        "| what | ours | peer | speed-up | CPU ours / peer | CPU ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(row.row() for row in rows)]) + "\n"

"""Choosing by measurement: the same work done several ways, and the way that took least time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from statistics import median

import torch

Timer = Callable[[Callable[[], None]], float]
"""Seconds that a piece of work takes, once warm."""

_log = logging.getLogger(__name__)
_ROUNDS = 7


def cuda_timer(device: torch.device) -> Timer:
    """Median over some rounds, between events on the device's current stream."""

    def time(work: Callable[[], None]) -> float:
        times: list[float] = []
        for _ in range(_ROUNDS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record(torch.cuda.current_stream(device))
            work()
            end.record(torch.cuda.current_stream(device))
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return median(times[1:])

    return time


def fastest(candidates: dict[str, Callable[[], None]], timer: Timer) -> str:
    """The name of the quickest candidate; one that fails is out. Raises RuntimeError when all do.

    A candidate runs once before it is timed: libraries compile and set themselves up then.
    """
    times: dict[str, float] = {}
    for name, work in candidates.items():
        try:
            work()
            times[name] = timer(work)
        except Exception as error:  # whatever a library's kernels raise on a shape that they do not have
            _log.info("%s is out: %s", name, error)
    if not times:
        raise RuntimeError(f"none of {', '.join(candidates)} runs on this device")
    chosen = min(times, key=times.__getitem__)
    _log.info("%s of %s", chosen, ", ".join(f"{name} {1e6 * took:.0f} µs" for name, took in times.items()))
    return chosen

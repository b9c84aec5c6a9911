"""The clock of a job: wall time for processing time, and a monotonic one for durations. Tests give their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "when_moved"]


class Clock(Protocol):
    """What tasks, timers and the checkpoint coordinator ask for the time."""

    def now_ms(self) -> int:
        """Processing time: milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that only grow; for durations."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def when_moved(clock: Clock, listener: Callable[[], None]) -> None:
    """Have `listener` called when a clock that is moved by hand was moved; others move by themselves."""
    subscribe = getattr(clock, "subscribe", None)
    if subscribe is not None:
        subscribe(listener)

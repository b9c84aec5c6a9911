"""Windows: what records are grouped into, and the durations that describe them."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.units import parse_duration

__all__ = [
    "FOREVER",
    "Duration",
    "GlobalWindow",
    "TimeWindow",
    "WindowResult",
    "checked_duration",
    "is_count",
    "milliseconds",
]

Duration = int | float | str | timedelta  # milliseconds, "10s" or a timedelta

FOREVER = 2**63 - 1  # Flink's Long.MAX_VALUE: the end of time

K = TypeVar("K")
W = TypeVar("W", bound=Hashable)
V = TypeVar("V")


class TimeWindow(NamedTuple):
    """The times from `start` (included) to `end` (excluded), in milliseconds. After Flink's TimeWindow.

    >>> window = TimeWindow(0, 10_000)
    >>> window.max_timestamp()
    9999
    """

    start: int
    end: int

    def max_timestamp(self) -> int:
        """The last millisecond that belongs to the window; results of the window have this time."""
        return self.end - 1

    def intersects(self, other: TimeWindow) -> bool:
        """Whether the two overlap or touch: windows that touch merge, as in Flink's `TimeWindow.intersects`."""
        return self.start <= other.end and self.end >= other.start

    def cover(self, other: TimeWindow) -> TimeWindow:
        """The smallest window that holds both."""
        return TimeWindow(min(self.start, other.start), max(self.end, other.end))


class GlobalWindow(NamedTuple):
    """The one window of `GlobalWindows`: it never ends by itself. After Flink's GlobalWindow."""

    def max_timestamp(self) -> int:
        """The end of time."""
        return FOREVER


class WindowResult(NamedTuple, Generic[K, W, V]):
    """What the built-in aggregates of a window put out: a tuple of the key, the window and the value.

    >>> key, window, value = WindowResult("a", TimeWindow(0, 1000), 3)
    >>> window.end, value
    (1000, 3)
    """

    key: K
    window: W
    value: V


def milliseconds(value: object) -> int:
    """A duration in whole milliseconds; may be negative. Raises ValueError.

    >>> milliseconds("1.5s"), milliseconds(20), milliseconds(timedelta(minutes=1)), milliseconds("-5s")
    (1500, 20, 60000, -5000)
    """
    if isinstance(value, timedelta):
        return round(value / timedelta(milliseconds=1))
    if isinstance(value, str) and value.strip().startswith("-"):
        return -milliseconds(value.strip()[1:])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return round(value)
    return round(parse_duration(value) * 1000)


def checked_duration(value: object, what: str, *, least: int | None = 1) -> int:
    """A duration of at least `least` milliseconds. Raises PipelineError, which says what it is for."""
    try:
        duration = milliseconds(value)
    except ValueError as error:
        raise PipelineError(
            f"{what} must be a duration",
            cause=str(error),
            hint='"10s", "500ms", milliseconds as an int, or a timedelta',
        ) from error
    if least is not None and duration < least:
        raise PipelineError(f"{what} must be at least {least} ms", cause=f"got {value!r}")
    return duration


def is_count(value: object, least: int) -> bool:
    """Whether it is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

"""Evictors: which records are left out of a window's contents, before or after they are put out.

Semantics of Flink's classes of the same names. A window with an evictor keeps all its records, also when it aggregates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.windows.types import Duration, checked_duration, is_count

__all__ = ["CountEvictor", "DeltaEvictor", "Evictor", "TimeEvictor", "TimestampedValue"]

T = TypeVar("T")


class TimestampedValue(NamedTuple, Generic[T]):
    """A record of a window with its time (ms), or None where records have none."""

    value: T
    timestamp: int | None


class Evictor(ABC, Generic[T]):
    """Takes records out of a window's contents; what it takes out is gone for later firings too.

    `elements` are in the order in which they came. Both methods return what stays. `by_place`: which ones stay does not
    depend on what they are; the operator then need not make TimestampedValues of them.
    """

    by_place = False

    @abstractmethod
    def evict_before(self, elements: list[TimestampedValue[T]], window: Any) -> list[TimestampedValue[T]]:
        """Before the window function sees the contents."""

    @abstractmethod
    def evict_after(self, elements: list[TimestampedValue[T]], window: Any) -> list[TimestampedValue[T]]:
        """After the window function has seen them."""


class _Once(Evictor[T], Generic[T]):
    """Evicts before the window function, or after it."""

    def __init__(self, after: bool) -> None:
        self._after = after

    def evict_before(self, elements: list[TimestampedValue[T]], window: Any) -> list[TimestampedValue[T]]:
        """See Evictor."""
        return elements if self._after else self._kept(elements)

    def evict_after(self, elements: list[TimestampedValue[T]], window: Any) -> list[TimestampedValue[T]]:
        """See Evictor."""
        return self._kept(elements) if self._after else elements

    @abstractmethod
    def _kept(self, elements: list[TimestampedValue[T]]) -> list[TimestampedValue[T]]: ...


class CountEvictor(_Once[Any]):
    """Keeps the last `max_count` records."""

    by_place = True

    def __init__(self, max_count: int, *, evict_after: bool = False) -> None:
        super().__init__(evict_after)
        if not is_count(max_count, 0):
            raise PipelineError("CountEvictor needs a count of at least 0", cause=f"got {max_count!r}")
        self.max_count = max_count

    @classmethod
    def of(cls, max_count: int, *, evict_after: bool = False) -> CountEvictor:
        """Keep the last `max_count` records."""
        return cls(max_count, evict_after=evict_after)

    def _kept(self, elements: list[TimestampedValue[Any]]) -> list[TimestampedValue[Any]]:
        excess = len(elements) - self.max_count
        return elements[excess:] if excess > 0 else elements


class TimeEvictor(_Once[Any]):
    """Keeps the records whose time is less than `size` before that of the latest one."""

    def __init__(self, size: Duration, *, evict_after: bool = False) -> None:
        super().__init__(evict_after)
        self.size = checked_duration(size, "The size of a TimeEvictor", least=0)

    @classmethod
    def of(cls, size: Duration, *, evict_after: bool = False) -> TimeEvictor:
        """Keep the records of the last `size`."""
        return cls(size, evict_after=evict_after)

    def _kept(self, elements: list[TimestampedValue[Any]]) -> list[TimestampedValue[Any]]:
        times = [element.timestamp for element in elements if element.timestamp is not None]
        if not elements or elements[0].timestamp is None:
            return elements
        cutoff = max(times) - self.size
        return [element for element in elements if element.timestamp is None or element.timestamp > cutoff]


class DeltaEvictor(_Once[T], Generic[T]):
    """Keeps the records that differ from the last one by less than `threshold`: `delta(record, last)`, a number."""

    def __init__(self, threshold: float, delta: Callable[[T, T], float], *, evict_after: bool = False) -> None:
        super().__init__(evict_after)
        if not callable(delta):
            raise PipelineError("DeltaEvictor needs a function of two records", cause=f"got {delta!r:.80}")
        self.threshold = threshold
        self.delta = delta

    @classmethod
    def of(cls, threshold: float, delta: Callable[[T, T], float], *, evict_after: bool = False) -> DeltaEvictor[T]:
        """Drop the records with `delta(record, last) >= threshold`."""
        return cls(threshold, delta, evict_after=evict_after)

    def _kept(self, elements: list[TimestampedValue[T]]) -> list[TimestampedValue[T]]:
        if not elements:
            return elements
        last = elements[-1].value
        return [element for element in elements if self.delta(element.value, last) < self.threshold]

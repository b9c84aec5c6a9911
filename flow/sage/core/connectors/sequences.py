"""Numbers, and records that are made from numbers: a source that needs nothing outside, at a rate of its own.

The numbers are dealt in blocks over a fixed number of splits, and a reader takes the smallest number that it has next:
one subtask gives them in order, several share them, and a checkpoint can be restored with another parallelism.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split

__all__ = ["GeneratorSource", "RangeSource", "SequenceSource"]

T = TypeVar("T")
SPLITS = 16
BLOCK = 32


@dataclass(frozen=True)
class SequenceSource(Source[T]):
    """`count` records (None: without end), `rate` a second over all subtasks (None: as fast as they are taken)."""

    count: int | None
    rate: float | None = None

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split(f"numbers-{part:02}") for part in range(SPLITS)]

    def reader(self, context: ReaderContext) -> SourceReader[T]:
        """See Source."""
        return SequenceReader(self, context)

    def make(self, start: int, stop: int) -> list[T]:
        """The records with the numbers from `start` to before `stop`."""
        raise NotImplementedError


@dataclass(frozen=True)
class RangeSource(SequenceSource[int]):
    """The numbers of a `range`."""

    values: range = range(0)

    def make(self, start: int, stop: int) -> list[int]:
        """See SequenceSource."""
        return list(self.values[start:stop])


@dataclass(frozen=True)
class GeneratorSource(SequenceSource[T]):
    """`function(number)`; the same number must give the same record for a replay to be one."""

    function: Callable[[int], T] | None = None

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """See Source."""
        return self.count is not None

    def make(self, start: int, stop: int) -> list[T]:
        """See SequenceSource."""
        assert self.function is not None, "given by from_generator"
        return list(map(self.function, range(start, stop)))


class SequenceReader(SourceReader[T]):
    """The next number of each split is its position."""

    def __init__(self, source: SequenceSource[T], context: ReaderContext) -> None:
        self._source = source
        self._clock = context.clock
        self._next: dict[str, int] = {}
        self._woken = threading.Event()
        self._given = 0.0  # records given since `_began`
        self._began: float | None = None

    def add_splits(self, splits: Sequence[Split]) -> None:
        """See SourceReader."""
        for split in splits:
            self._next[split.id] = int(split.id[-2:]) * BLOCK if split.position is None else split.position

    def poll(self, limit: int, timeout: float) -> list[T] | None:
        """See SourceReader."""
        if not self._next:
            return None
        count = self._source.count
        if count is not None and min(self._next.values()) >= count:
            return None
        allowed = self._allowed(limit, timeout)
        records: list[T] = []
        while len(records) < allowed:
            split_id, start = min(self._next.items(), key=_number)
            if count is not None and start >= count:
                break
            stop = min(start + allowed - len(records), (start // BLOCK + 1) * BLOCK)
            records += self._source.make(start, stop if count is None else min(stop, count))
            self._next[split_id] = stop if stop % BLOCK else stop + (SPLITS - 1) * BLOCK
        self._given += len(records)
        return records

    def snapshot(self) -> list[Split]:
        """See SourceReader."""
        return [Split(split_id, position) for split_id, position in self._next.items()]

    def wake_up(self) -> None:
        """See SourceReader."""
        self._woken.set()

    def _allowed(self, limit: int, timeout: float) -> int:
        """How many records are due; waits until the next one is, or for `timeout`."""
        if self._source.rate is None:
            return limit
        rate = self._source.rate * len(self._next) / SPLITS
        now = self._clock.monotonic()
        if self._began is None:
            self._began = now
        due = int((now - self._began) * rate) + 1 - int(self._given)
        if due > 0:
            return min(limit, due)
        self._woken.wait(min(timeout, self._began + self._given / rate - now))
        self._woken.clear()
        return 0


def _number(item: tuple[str, Any]) -> int:
    return int(item[1])

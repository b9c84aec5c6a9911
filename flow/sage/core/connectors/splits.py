"""A reader for sources whose splits are read one after the other, each from a position that can be sought.

The connector gives a `Cursor` for a split; which split is next, what is finished and what goes into checkpoints is done
here. Splits that were read to their end stay in the positions, so that a restore does not begin them anew.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from sage.core.connectors.base import SourceReader, Split
from sage.core.runtime.events import Batch

__all__ = ["Cursor", "CursorReader", "OpenCursor"]

T = TypeVar("T")


class Cursor(ABC, Generic[T]):
    """Reads one split. `position` is plain data: where a new cursor goes on after the last record that `read` gave."""

    position: Any = None

    @abstractmethod
    def read(self, limit: int) -> Batch | list[T] | None:
        """Up to `limit` records; an empty list when there are none now; None at the end."""

    def close(self) -> None:
        """Let go of files and connections."""


OpenCursor = Callable[[Split], Cursor[T]]


class CursorReader(SourceReader[T]):
    """Reads splits in the order in which they were given, one at a time."""

    def __init__(self, open_cursor: OpenCursor[T]) -> None:
        self._open = open_cursor
        self._waiting: dict[str, Any] = {}  # position by id, not begun or not at its end
        self._finished: list[str] = []
        self._current: tuple[str, Cursor[T]] | None = None
        self._woken = threading.Event()

    def add_splits(self, splits: Sequence[Split]) -> None:
        """See SourceReader; positions are what `snapshot` gave: [is finished, position of the cursor]."""
        for split in splits:
            finished, position = split.position if split.position is not None else (False, None)
            if finished:
                self._finished.append(split.id)
            else:
                self._waiting[split.id] = position

    def knows(self, split_id: str) -> bool:
        """Whether that split was given, read or not."""
        return split_id in self._waiting or split_id in self._finished

    def poll(self, limit: int, timeout: float) -> Batch | list[T] | None:
        """See SourceReader."""
        while True:
            current = self._current or self._next()
            if current is None:
                return self.no_splits(timeout)
            split_id, cursor = current
            records = cursor.read(limit)
            if records is not None:
                if not len(records):
                    self.pause(timeout)
                return records
            self._end(split_id, cursor)

    def no_splits(self, timeout: float) -> list[T] | None:
        """What `poll` gives when every split is read: the end."""
        return None

    def pause(self, seconds: float) -> None:
        """Wait, or until woken."""
        self._woken.wait(seconds)
        self._woken.clear()

    def snapshot(self) -> list[Split]:
        """See SourceReader."""
        if self._current is not None:
            split_id, cursor = self._current
            self._waiting[split_id] = cursor.position
        finished = [Split(split_id, [True, None]) for split_id in self._finished]
        return finished + [Split(split_id, [False, position]) for split_id, position in self._waiting.items()]

    def wake_up(self) -> None:
        """See SourceReader."""
        self._woken.set()

    def close(self) -> None:
        """See SourceReader."""
        if self._current is not None:
            self._current[1].close()
            self._current = None

    def _next(self) -> tuple[str, Cursor[T]] | None:
        if not self._waiting:
            return None
        split_id, position = next(iter(self._waiting.items()))
        self._current = split_id, self._open(Split(split_id, position))
        return self._current

    def _end(self, split_id: str, cursor: Cursor[T]) -> None:
        cursor.close()
        self._current = None
        del self._waiting[split_id]
        self._finished.append(split_id)

"""A source that a test directs: records, and marks between them."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split

__all__ = ["ABORT", "END", "PAUSE", "Mark", "MarkedSource", "SourceAborted"]

T = TypeVar("T")


class Mark(enum.Enum):
    """What a `MarkedSource` does between two records."""

    PAUSE = "pause"
    """Give nothing until `proceed()` is called."""
    ABORT = "abort"
    """Raise `SourceAborted`, the first time: as a crash there. Whoever reads again from before it passes."""
    END = "end"
    """The stream ends here; a job that continues from its checkpoint goes on behind it."""


PAUSE, ABORT, END = Mark.PAUSE, Mark.ABORT, Mark.END


class SourceAborted(Exception):  # noqa: N818 - what a mark asks for, not a mistake
    """A MarkedSource came to ABORT."""


class MarkedSource(Source[T], Generic[T]):
    """Gives `items`, records and marks, in order, to one subtask; its position goes into checkpoints.

    >>> from sage.core.api import LocalEnvironment
    >>> env = LocalEnvironment("marks", {"restart": {"attempts": 1, "delay": 0}, "checkpoint": {"interval": "1h"}})
    >>> source, out = MarkedSource([1, 2, PAUSE, 3, ABORT, 4]), []
    >>> sink = env.from_source(source).sink(out.append)
    >>> handle = env.submit(block=False)
    >>> source.wait_until_paused()     # 1 and 2 are read
    >>> source.proceed()
    >>> str(handle.wait())             # it crashes behind 3, and begins anew: there was no checkpoint
    'finished'
    >>> out
    [1, 2, 3, 1, 2, 3, 4]
    """

    def __init__(self, items: Iterable[T | Mark]) -> None:
        self.items: Sequence[T | Mark] = list(items)
        self._changed = threading.Condition()
        self._paused_at: int | None = None
        self._resumed: set[int] = set()
        self._aborted: set[int] = set()

    def splits(self) -> list[Split]:
        """All items, as one split."""
        return [Split("items", 0)]

    def reader(self, context: ReaderContext) -> SourceReader[T]:
        """See Source."""
        return _Reader(self)

    def wait_until_paused(self, timeout: float = 30.0) -> None:
        """Until every record before the next PAUSE was taken. Raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._paused_at is not None, timeout):
                raise TimeoutError(f"the source did not come to a PAUSE within {timeout:g} s")

    def proceed(self) -> None:
        """Go on behind the PAUSE at which the source stands. Raises RuntimeError when it stands at none."""
        with self._changed:
            if self._paused_at is None:
                raise RuntimeError("the source does not stand at a PAUSE: wait_until_paused() first")
            self._resumed.add(self._paused_at)
            self._paused_at = None
            self._changed.notify_all()

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self.items}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["items"])  # type: ignore[misc]


class _Reader(SourceReader[T]):
    """Reads where its split says; a pause that was passed once is passed again."""

    def __init__(self, source: MarkedSource[T]) -> None:
        self._source = source
        self._position: int | None = None
        self._woken = False
        self._arrived: int | None = None

    def add_splits(self, splits: Sequence[Split]) -> None:
        """The one split, in one of the subtasks."""
        for split in splits:
            self._position = int(split.position or 0)

    def poll(self, limit: int, timeout: float) -> list[T] | None:
        """See SourceReader."""
        if self._position is None:  # the items are another subtask's
            return None
        records: list[T] = []
        items, source = self._source.items, self._source
        while len(records) < limit and self._position < len(items):
            item = items[self._position]
            if not isinstance(item, Mark):
                records.append(item)
            elif records and not self._is_passed(item):
                return records
            elif item is Mark.PAUSE and not self._is_passed(item):
                self._pause(timeout)
                if not self._is_passed(item):
                    return records
            elif item is Mark.ABORT and not self._is_passed(item):
                source._aborted.add(self._position)
                raise SourceAborted(f"ABORT at position {self._position}")
            elif item is Mark.END:
                self._position += 1
                return None
            self._position += 1
        return records or None

    def snapshot(self) -> list[Split]:
        """The position, also at the end: a restore must not begin anew."""
        return [] if self._position is None else [Split("items", self._position)]

    def wake_up(self) -> None:
        """See SourceReader."""
        with self._source._changed:
            self._woken = True
            self._source._changed.notify_all()

    def _is_passed(self, mark: Mark) -> bool:
        if mark is Mark.PAUSE:
            return self._position in self._source._resumed
        return mark is Mark.ABORT and self._position in self._source._aborted

    def _pause(self, timeout: float) -> None:
        source = self._source
        with source._changed:
            if self._arrived != self._position:  # once round the task first: it sends on what it holds
                self._arrived = self._position
                return
            if source._paused_at != self._position:
                source._paused_at = self._position
                source._changed.notify_all()
            source._changed.wait_for(lambda: self._woken or self._position in source._resumed, timeout)
            self._woken = False

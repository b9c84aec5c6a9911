"""Sources as a task's input, with positions that go into checkpoints (after Flink's SourceOperator, FLIP-27).

A position is stored as operator state of the source in the mode `union`: after a restore every subtask sees the
positions of all splits, and takes those that its share of the splits' ids gives it. So a source can be rescaled.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split
from sage.core.runtime.events import Batch, EndOfStream, Item
from sage.core.runtime.failure import OnError, RecordFailure
from sage.core.state.base import OperatorStateBackend

__all__ = ["BadRecords", "SplitInput", "splits_of"]

SPLITS = "source.splits"
_WAIT = 0.5  # seconds that a poll may wait where nothing else is due; a wake ends it early


def splits_of(subtask: int, parallelism: int, splits: list[Split]) -> list[Split]:
    """The share of one subtask: by a hash of the split's id that is the same in every process."""
    return [split for split in splits if zlib.crc32(split.id.encode()) % parallelism == subtask]


@dataclass(slots=True, frozen=True)
class BadRecords:
    """What a source read that is no record: told to the job's `on_error`, or raised where there is none."""

    on_error: OnError | None
    operator: str
    operator_id: str
    subtask: int

    def __call__(self, record: object, error: Exception) -> None:
        if self.on_error is None:
            raise error
        self.on_error(RecordFailure(self.operator, self.operator_id, self.subtask, record, None, error))


class SplitInput:
    """The reader of one subtask of a `Source`. Everything but `wake` is called by the task's own thread."""

    can_replay = True

    def __init__(
        self,
        source: Source[Any],
        make_context: Callable[[Callable[[], None]], ReaderContext],
        state: OperatorStateBackend,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._source = source
        self._make_context = make_context
        self._state = state
        self._is_stopping = is_stopping
        self._reader: SourceReader[Any] | None = None
        self._ended = False
        self._known: dict[int, list[Split]] = {}  # what each unfinished checkpoint holds

    @property
    def depth(self) -> int:
        """Readers hold nothing that the engine knows of."""
        return 0

    def open(self) -> None:
        """Make the reader and give it its splits, where the state knows a position there."""
        context = self._make_context(self.wake)
        stored = [Split(entry[0], entry[1]) for entry in self._state.get(SPLITS, "union")]
        every = self._source.resume(stored) if stored else self._source.splits()
        self._reader = self._source.reader(context)
        self._reader.add_splits(splits_of(context.subtask, context.parallelism, every))

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        """See TaskInput."""
        if self._reader is None:
            self.open()
        assert self._reader is not None
        if self._ended or self._is_stopping():
            return 0, EndOfStream()
        records = self._reader.poll(limit, _WAIT if timeout is None else min(timeout, _WAIT))
        if records is None:
            self._ended = True
            return 0, EndOfStream()
        if isinstance(records, Batch):
            return (0, records) if records.records else None
        return (0, Batch(records)) if records else None

    def snapshot(self, checkpoint_id: int) -> None:
        """Put the positions after the last record that `take` gave into the state."""
        if self._reader is None:
            self.open()
        assert self._reader is not None
        splits = self._reader.snapshot()
        self._known[checkpoint_id] = splits
        self._state.put(SPLITS, [[split.id, split.position] for split in splits], "union")

    def notify_complete(self, checkpoint_id: int) -> None:
        """Tell the reader that its positions are safe."""
        splits = self._known.get(checkpoint_id)
        self._known = {number: kept for number, kept in self._known.items() if number > checkpoint_id}
        if splits is not None and self._reader is not None:
            self._reader.notify_complete(checkpoint_id, splits)

    def wake(self) -> None:
        """See TaskInput."""
        if self._reader is not None:
            self._reader.wake_up()

    def close(self) -> None:
        """See TaskInput."""
        if self._reader is not None:
            self._reader.close()

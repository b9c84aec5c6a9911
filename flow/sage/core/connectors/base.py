"""The interfaces of connectors (after Flink's FLIP-27 sources and FLIP-143/191 sinks, without their coordinators).

A **source** names its splits (files, partitions, one for a socket). Each subtask reads the splits it is given; a
split's position is plain data that goes into checkpoints, and a reader that is given a position goes on exactly there.

A **sink** writes, and at a barrier hands out committables: plain data that say what is to be made visible (a temporary
file to rename, a transaction to commit). They are stored in the checkpoint and committed when it is complete; after a
restore they are committed again, so `commit` must be idempotent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sage.core.runtime.clock import Clock
from sage.core.runtime.events import Batch

__all__ = ["BadRecord", "ReaderContext", "Sink", "SinkContext", "SinkWriter", "Source", "SourceReader", "Split"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

BadRecord: TypeAlias = Callable[[object, Exception], None]


def _refuse(record: object, error: Exception) -> None:
    raise error


@dataclass(slots=True, frozen=True)
class Split:
    """A part of a source: a stable name, and where to go on reading (None: from its beginning). Both plain data."""

    id: str
    position: Any = None


@dataclass(slots=True, frozen=True)
class ReaderContext:
    """`is_stopping()` is true once the job was asked to stop; `wake()` (any thread) ends a `poll` that waits.

    `bad_record(what was read, why it is no record)` raises the error, or returns where the job leaves out such records
    (`on_error: skip` or `dead-letter`); called in the task's thread.
    """

    subtask: int
    parallelism: int
    clock: Clock
    is_stopping: Callable[[], bool]
    wake: Callable[[], None]
    bad_record: BadRecord = _refuse


class SourceReader(ABC, Generic[T_co]):
    """Reads the splits of one subtask. All calls come from one thread, except `wake_up`."""

    @abstractmethod
    def poll(self, limit: int, timeout: float) -> Batch | list[T_co] | None:
        """Up to `limit` records as soon as any are there; an empty list after `timeout` seconds without; None: the end.

        A Batch carries event timestamps. Raises what went wrong (the job's restart strategy decides).
        """

    @abstractmethod
    def snapshot(self) -> list[Split]:
        """Every split that is not read to its end, with its position after the last record that `poll` returned; ended
        splits too where a restart would begin them anew."""

    def add_splits(self, splits: Sequence[Split]) -> None:
        """More to read: the first ones (before the first `poll`), those of a restore, or some found while running."""
        raise NotImplementedError

    def notify_complete(self, checkpoint_id: int, splits: Sequence[Split]) -> None:
        """The checkpoint that holds these positions is complete (acknowledge, commit offsets)."""

    def wake_up(self) -> None:
        """Make a waiting `poll` return soon; from another thread."""

    def close(self) -> None:
        """Let go of files and connections."""


class Source(ABC, Generic[T_co]):
    """Describes what to read; picklable plain data. `bounded`: it ends by itself."""

    bounded: bool = True

    @abstractmethod
    def splits(self) -> list[Split]:
        """The splits as they are now; dealt over subtasks by a stable hash of their ids."""

    def resume(self, stored: Sequence[Split]) -> list[Split]:
        """The splits after a restore: by default those stored, and those that are new since."""
        found = {split.id: split for split in self.splits()}
        return list((found | {split.id: split for split in stored}).values())

    @abstractmethod
    def reader(self, context: ReaderContext) -> SourceReader[T_co]:
        """A reader for one subtask."""


@dataclass(slots=True, frozen=True)
class SinkContext:
    """`job` is the job's stable identity, `run` differs with each attempt; names of temporary files are made of these,
    the operator's uid and the subtask."""

    job: str
    run: str
    operator_id: str
    subtask: int
    parallelism: int
    clock: Clock


class SinkWriter(ABC, Generic[T]):
    """Writes the records of one subtask. All calls come from the task's thread."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Take records; may hold them back until `flush`, `prepare` or a size is reached."""

    def flush(self) -> None:
        """Make what was written visible where that needs no commit; called when the stream pauses."""

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """At a barrier, and at the end: finish the current transaction and give its committables (plain data)."""
        return []

    def commit(self, committables: Sequence[Any]) -> None:
        """Make them visible; idempotent, and also called after a restore with what was stored. In order."""

    def recover(self, committables: Sequence[Any]) -> None:
        """Once, before the first `write`: remove what earlier runs left uncommitted.

        `committables` is what the checkpoint holds of all subtasks (empty where nothing was restored). This subtask has
        committed its share of them; others may be about to commit theirs: leave those alone.
        """

    def close(self) -> None:
        """Let go; what was not committed stays uncommitted."""


class Sink(ABC, Generic[T]):
    """Describes where to write; picklable plain data. `exactly_once` sinks are committed with checkpoints."""

    exactly_once: bool = False

    @abstractmethod
    def writer(self, context: SinkContext) -> SinkWriter[T]:
        """A writer for one subtask."""

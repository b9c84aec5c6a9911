"""Where a source task's records come from. Each input looks like a channel: `take` gives batches, then the end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from sage.common.errors import StateError
from sage.core.api.function.base_function import StopSignal
from sage.core.runtime.bell import Bell
from sage.core.runtime.events import Batch, EndOfStream, Item, JobAborted
from sage.core.state.base import OperatorStateBackend

__all__ = ["CollectionInput", "ReaderInput", "RecordCount", "TaskInput", "calls"]

_END: Any = object()
_COUNTS = "source.counts"
_POLL = 0.02  # seconds; how often a waiting side looks by itself
_JOIN = 0.2


class TaskInput(Protocol):
    """What a task reads."""

    @property
    def depth(self) -> int:
        """Records that wait here."""

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        """At most `limit` records with their port, or a control event; None after `timeout` seconds, or when woken."""

    def wake(self) -> None:
        """Make a `take` that waits return soon; from any thread."""

    def close(self) -> None:
        """No more will be taken."""


class RecordCount:
    """How many records a subtask has read, as the position of a source that gives the same ones in every run."""

    def __init__(self, state: OperatorStateBackend, subtask: int, parallelism: int) -> None:
        self._state = state
        self._subtask = subtask
        self._parallelism = parallelism

    def restored(self) -> int:
        """The count to go on from; 0 where nothing was restored. Raises StateError after a change of parallelism."""
        for subtask, count, parallelism in self._state.get(_COUNTS, "union"):
            if count and parallelism != self._parallelism:
                raise StateError(
                    f"A source of parallelism {parallelism} cannot go on with {self._parallelism}",
                    cause="each of its subtasks counts records of its own",
                    hint="restore it with the parallelism of before, or read with a connector whose splits can move",
                )
            if subtask == self._subtask:
                return int(count)
        return 0

    def keep(self, count: int) -> None:
        """Put it into the next snapshot."""
        self._state.put(_COUNTS, [[self._subtask, count, self._parallelism]], "union")


class CollectionInput:
    """A sequence in memory, sliced. Ends early once the job is stopping."""

    can_replay = True

    def __init__(self, data: Sequence[Any], stopping: threading.Event, count: RecordCount | None = None) -> None:
        self._data = data
        self._count = count
        self._position = count.restored() if count is not None else 0
        self._stopping = stopping

    @property
    def depth(self) -> int:
        return 0

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        start = self._position
        if start >= len(self._data) or self._stopping.is_set():
            return 0, EndOfStream()
        self._position = min(start + limit, len(self._data))
        return 0, Batch(list(self._data[start : self._position]))

    def snapshot(self, checkpoint_id: int) -> None:
        """See InputPosition."""
        if self._count is not None:
            self._count.keep(self._position)

    def notify_complete(self, checkpoint_id: int) -> None:
        """Nothing is let go."""

    def wake(self) -> None:
        """Never waits."""

    def close(self) -> None:
        """Nothing is held."""


class ReaderInput:
    """An iterator that may wait, read ahead in a thread of its own.

    So a record is processed as soon as it is there, whatever the next one takes. At most `capacity` records are read
    ahead. The iterator is made, advanced and closed in the reader's thread.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[Any]],
        *,
        name: str,
        capacity: int,
        stopping: threading.Event,
        aborted: threading.Event,
        count: RecordCount | None = None,
    ) -> None:
        self._make = make
        self._count = count
        self._taken = count.restored() if count is not None else 0
        self.can_replay = count is not None
        self._stop_reading = False
        self._capacity = capacity
        self._stopping = stopping
        self._aborted = aborted
        self._records: deque[Any] = deque()
        self._arrived = Bell()
        self._room = Bell()
        self._done = False
        self._woken = False
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name=f"{name}-reader", daemon=True)
        self._started = False

    @property
    def depth(self) -> int:
        return len(self._records)

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        """As TaskInput. Once the job is stopping, what was read is still given, then the end.

        A reader that is waiting for its source then gets a moment (_JOIN) to hand over a record that it just read.
        """
        if not self._started:
            self._started = True
            self._thread.start()
        if self._is_stopping:
            self._over = True
        deadline = None if timeout is None else time.monotonic() + timeout
        stop_by: float | None = None
        while not self._records:
            if self._aborted.is_set():
                raise JobAborted
            if self._done and not self._records:  # nothing comes behind the end
                if self._error is not None:
                    raise self._error
                return 0, EndOfStream()
            if self._is_stopping:
                self._over = True
                if stop_by is None:
                    stop_by = time.monotonic() + _JOIN
                if time.monotonic() >= stop_by:
                    return 0, EndOfStream()
            remaining = _POLL if deadline is None else deadline - time.monotonic()
            if self._woken or remaining <= 0:
                self._woken = False
                return None
            self._wait(min(_POLL, remaining))
        records, popleft = self._records, self._records.popleft
        batch = [popleft() for _ in range(min(limit, len(records)))]
        self._taken += len(batch)
        if len(records) <= self._capacity // 2:
            self._room.ring()
        return 0, Batch(batch)

    def _wait(self, seconds: float) -> None:
        self._arrived.arm()
        if self._records or self._done or self._woken:
            self._arrived.disarm()
        else:
            self._arrived.sleep(seconds)

    def stop_reading(self) -> None:
        """Read no further; what was read is still given, then the end."""
        self._stop_reading = True

    def snapshot(self, checkpoint_id: int) -> None:
        """See InputPosition; what was read ahead is read again after a restore."""
        if self._count is not None:
            self._count.keep(self._taken)

    def notify_complete(self, checkpoint_id: int) -> None:
        """Nothing is let go."""

    @property
    def _is_stopping(self) -> bool:
        return self._stop_reading or self._stopping.is_set()

    def wake(self) -> None:
        self._woken = True
        self._arrived.ring()

    def close(self) -> None:
        """Tell the reader to stop; one that is blocked in the user's code is left behind (a daemon thread)."""
        self._over = True
        self._room.ring()
        if self._started:
            self._thread.join(_JOIN)

    def _read(self) -> None:
        try:
            iterator = self._make()
            try:
                with suppress(StopSignal):
                    if self._skipped(iterator, self._taken):
                        self._pump(iterator)
            finally:
                if isinstance(iterator, Generator):
                    iterator.close()
        except BaseException as error:  # handed to the task's thread
            self._error = error
        self._done = True
        self._arrived.ring()

    def _pump(self, iterator: Iterator[Any]) -> None:
        """Put the records down; the task, when it waits, hears of each."""
        records, ring = self._records, self._arrived.ring
        append, capacity = records.append, self._capacity
        for record in iterator:
            append(record)
            ring()
            if len(records) >= capacity:
                self._wait_for_room()
            if self._over:
                return

    def _skipped(self, iterator: Iterator[Any], count: int) -> bool:
        """Pass over the records that came before the checkpoint; False when the job ended meanwhile."""
        return all(not self._over and next(iterator, _END) is not _END for _ in range(count))

    def _wait_for_room(self) -> None:
        while len(self._records) > self._capacity // 2 and not (self._over or self._aborted.is_set()):
            self._room.arm()
            if len(self._records) > self._capacity // 2 and not self._over:
                self._room.sleep(_POLL)
            else:
                self._room.disarm()


def calls(function: Callable[[], Any]) -> Iterator[Any]:
    """The records of a source function: what each call returns until StopSignal, or what its iterator gives."""
    while True:
        try:
            record = function()
        except (StopSignal, StopIteration):
            return
        if isinstance(record, StopSignal) or record is StopSignal:
            return
        if isinstance(record, Iterator):
            yield from record
            return
        yield record

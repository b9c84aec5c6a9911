"""A reader that waits for the outside in a thread of its own: connections whose library cannot be woken, servers."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sage.core.connectors.backoff import Backoff
from sage.core.connectors.base import SourceReader, Split

__all__ = ["Closed", "ThreadedReader"]

T = TypeVar("T")
_JOIN = 1.0  # seconds that `close` waits for the thread


class Closed(Exception):  # noqa: N818 - a way out of the thread, not a failure
    """The reader was closed: the thread has nothing left to do."""


class ThreadedReader(SourceReader[T]):
    """`run` reads in the thread and puts down what it reads, with the split's position behind it; `decode` makes
    records of that in the task's thread. At most `capacity` wait; then the thread waits."""

    capacity = 8192

    def __init__(self, name: str) -> None:
        self._splits: dict[str, Any] = {}  # the positions behind what `poll` gave
        self._read: deque[tuple[str, Any, Any]] = deque()  # (split, what was read, position)
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._woken = self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._name = name

    @abstractmethod
    def run(self, splits: dict[str, Any]) -> None:
        """In the thread: read the splits from these positions until there is no more. What it raises fails the job."""

    def decode(self, read: Any) -> list[T]:
        """The records in what was read at once."""
        return [read]

    def put(self, split: str, read: Any, position: Any) -> None:
        """In the thread. Raises Closed."""
        with self._changed:
            while len(self._read) >= self.capacity and not self._closed.is_set():
                self._changed.wait()
            if self._closed.is_set():
                raise Closed
            self._read.append((split, read, position))
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """In the thread: pause. Raises Closed."""
        if self._closed.wait(seconds):
            raise Closed

    def again(self, connection: Callable[[Backoff], None], backoff: Backoff, lost: tuple[type[Exception], ...]) -> None:
        """In the thread: call `connection` until it returns, again and again after it raised what `lost` names."""
        while True:
            try:
                return connection(backoff)
            except lost as error:
                self.wait(backoff.failed(error))

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed.is_set()

    def add_splits(self, splits: Sequence[Split]) -> None:
        """See SourceReader."""
        self._splits |= {split.id: split.position for split in splits}

    def poll(self, limit: int, timeout: float) -> list[T] | None:
        """See SourceReader."""
        if not self._splits:
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, args=(dict(self._splits),), daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._read or self._ended or self._woken, timeout)
            self._woken = False
            taken = [self._read.popleft() for _ in range(min(limit, len(self._read)))]
            self._changed.notify_all()
        if not taken and self._ended:
            if self._error is not None:
                raise self._error
            return None
        records = []
        for split, read, position in taken:
            records += self.decode(read)
            self._splits[split] = position
        return records

    def snapshot(self) -> list[Split]:
        """See SourceReader."""
        return [Split(split_id, position) for split_id, position in self._splits.items()]

    def wake_up(self) -> None:
        """See SourceReader."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """See SourceReader; a thread that waits in a library is left behind (a daemon)."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN)

    def _run(self, splits: dict[str, Any]) -> None:
        error: BaseException | None = None
        try:
            self.run(splits)
        except Closed:
            pass
        except BaseException as raised:  # handed to the task's thread
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

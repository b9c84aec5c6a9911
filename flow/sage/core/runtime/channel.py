"""Bounded channels between tasks of one process.

An `InputGate` belongs to the receiving subtask and holds one queue for each sender. A full queue makes its sender wait:
back-pressure, which reaches the source by itself. The receiver also says how many records it can digest in a few
milliseconds (`preferred`); senders cut their batches to that, so that a slow receiver has few records in flight and a
clean stop has little to drain.

Control events of several senders are combined as in Flink: a watermark is the least of all, a barrier comes out when it
has come in from all (until then, channels that delivered it wait), the end when all have ended.
"""

from __future__ import annotations

import threading
from collections import deque

from sage.core.runtime.events import Barrier, EndOfStream, Item, JobAborted, Records, Watermark

__all__ = ["InputGate"]

NO_WATERMARK = -(2**63)
FINAL_WATERMARK = 2**63 - 1


class InputGate:
    """The receiving end of `senders` channels, each holding at most `capacity` items."""

    def __init__(self, senders: int, capacity: int, aborted: threading.Event) -> None:
        self.preferred = 1
        self._queues: list[deque[Item]] = [deque() for _ in range(senders)]
        self._capacity = capacity
        self._aborted = aborted
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._next = 0
        self._ended: set[int] = set()
        self._blocked: set[int] = set()
        self._barrier: Barrier | None = None
        self._watermarks = [NO_WATERMARK] * senders
        self._watermark = NO_WATERMARK

    @property
    def depth(self) -> int:
        """Records that wait here."""
        return sum(len(item) for queue in list(self._queues) for item in list(queue) if isinstance(item, list))

    def put(self, sender: int, item: Item) -> None:
        """Add an item at the end of a channel; waits for room. Raises JobAborted."""
        queue = self._queues[sender]
        with self._room:
            while len(queue) >= self._capacity and not self._aborted.is_set():
                self._room.wait()
            if self._aborted.is_set():
                raise JobAborted
            queue.append(item)
            self._arrived.notify()

    def take(self, timeout: float | None) -> Item | None:
        """The next batch or combined control event; None after `timeout` seconds without one. Raises JobAborted."""
        with self._arrived:
            while True:
                if self._aborted.is_set():
                    raise JobAborted
                sender = self._ready()
                if sender is None:
                    if not self._arrived.wait(timeout):
                        return None
                    continue
                item = self._queues[sender].popleft()
                self._room.notify_all()
                if isinstance(item, list):
                    return item
                combined = self._control(sender, item)
                if combined is not None:
                    return combined

    def abort(self) -> None:
        """Wake everyone who waits here; the shared `aborted` event must be set before."""
        with self._arrived:
            self._arrived.notify_all()
            self._room.notify_all()

    def _ready(self) -> int | None:
        """A channel that holds something and is not held back by a barrier; channels take turns."""
        count = len(self._queues)
        for step in range(count):
            sender = (self._next + step) % count
            if self._queues[sender] and sender not in self._blocked:
                self._next = sender + 1
                return sender
        return None

    def _control(self, sender: int, event: Item) -> Item | None:
        if isinstance(event, EndOfStream):
            self._ended.add(sender)
            self._watermarks[sender] = FINAL_WATERMARK
            if len(self._ended) == len(self._queues):
                return event
            return self._aligned() or self._advanced()
        if isinstance(event, Watermark):
            self._watermarks[sender] = max(self._watermarks[sender], event.timestamp)
            return self._advanced()
        if isinstance(event, Barrier):
            self._barrier = event
            self._blocked.add(sender)
            return self._aligned()
        return None

    def _advanced(self) -> Watermark | None:
        least = min(self._watermarks)
        if least <= self._watermark or least == FINAL_WATERMARK:
            return None
        self._watermark = least
        return Watermark(least)

    def _aligned(self) -> Barrier | None:
        if self._barrier is None or len(self._blocked | self._ended) < len(self._queues):
            return None
        barrier, self._barrier = self._barrier, None
        self._blocked.clear()
        return barrier


def batches(records: Records, size: int) -> list[Records]:
    """Records cut into batches of at most `size`."""
    if len(records) <= size:
        return [records]
    return [records[start : start + size] for start in range(0, len(records), size)]

"""Bounded channels between tasks of one process.

An `InputGate` belongs to the receiving subtask and holds one queue for each sender. A full queue makes its sender wait:
back-pressure, which reaches the source by itself. The receiver also says how many records it can digest in a few
milliseconds (`preferred`); senders cut their batches to that, so that a slow receiver has few records in flight and a
clean stop has little to drain.

Control events of several senders are combined as in Flink: watermarks and statuses by a `WatermarkValve`, a barrier
comes out when it has come in from all (until then, channels that delivered it wait), the end when all have ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from sage.core.runtime.events import (
    Barrier,
    Batch,
    ControlEvent,
    EndOfStream,
    Item,
    JobAborted,
    LatencyMarker,
    StreamStatus,
    Watermark,
)
from sage.core.runtime.valve import WatermarkValve

__all__ = ["InputGate"]


class InputGate:
    """The receiving end of one channel for each of `ports`, each holding at most `capacity` items.

    `ports[sender]` is the logical input (of a two-input operator) that the sender's records belong to.
    """

    def __init__(self, ports: Sequence[int], capacity: int, aborted: threading.Event) -> None:
        senders = len(ports)
        self.preferred = 1
        self._ports = tuple(ports)
        self._queues: list[deque[Item]] = [deque() for _ in range(senders)]
        self._capacity = capacity
        self._aborted = aborted
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._woken = False
        self._next = 0
        self._ended: set[int] = set()
        self._drained = True
        self._blocked: set[int] = set()
        self._barrier: Barrier | None = None
        self._valve = WatermarkValve(senders)
        self._combined: deque[ControlEvent] = deque()

    @property
    def depth(self) -> int:
        """Records that wait here."""
        return sum(len(item) for queue in list(self._queues) for item in list(queue) if isinstance(item, Batch))

    def put(self, sender: int, item: Item) -> float:
        """Add an item at the end of a channel; waits for room. Returns the seconds waited. Raises JobAborted."""
        queue = self._queues[sender]
        waited = 0.0
        with self._room:
            if len(queue) >= self._capacity and not self._aborted.is_set():
                started = time.monotonic()
                while len(queue) >= self._capacity and not self._aborted.is_set():
                    self._room.wait()
                waited = time.monotonic() - started
            if self._aborted.is_set():
                raise JobAborted
            queue.append(item)
            self._arrived.notify()
        return waited

    def take(self, timeout: float | None) -> tuple[int, Item] | None:
        """The next batch with its port, or a combined control event (port 0).

        None after `timeout` seconds without one, or when woken. Raises JobAborted.
        """
        with self._arrived:
            while True:
                if self._aborted.is_set():
                    raise JobAborted
                if self._combined:
                    return 0, self._combined.popleft()
                sender = self._ready()
                if sender is None:
                    if self._woken or not self._arrived.wait(timeout) or self._woken:
                        self._woken = False
                        return None
                    continue
                item = self._queues[sender].popleft()
                self._room.notify_all()
                if isinstance(item, Batch):
                    return self._ports[sender], item
                self._combined.extend(self._control(sender, item))

    def wake(self) -> None:
        """Make `take` return soon; from any thread."""
        with self._arrived:
            self._woken = True
            self._arrived.notify()

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

    def _control(self, sender: int, event: ControlEvent) -> list[ControlEvent]:
        if isinstance(event, Watermark):
            return self._valve.advanced(sender, event.timestamp)
        if isinstance(event, StreamStatus):
            return self._valve.changed(sender, event.idle)
        if isinstance(event, LatencyMarker):
            return [event]
        if isinstance(event, Barrier):
            self._barrier = event
            self._blocked.add(sender)
            return self._aligned()
        return self._end(sender, event)

    def _end(self, sender: int, event: EndOfStream) -> list[ControlEvent]:
        self._ended.add(sender)
        self._drained = self._drained and event.drained
        aligned = self._aligned()
        if len(self._ended) == len(self._queues):
            return [*aligned, EndOfStream(self._drained)]
        return [*aligned, *self._valve.ended(sender)]

    def _aligned(self) -> list[ControlEvent]:
        if self._barrier is None or len(self._blocked | self._ended) < len(self._queues):
            return []
        barrier, self._barrier = self._barrier, None
        self._blocked.clear()
        return [barrier]

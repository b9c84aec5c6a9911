"""Bounded channels between tasks of one process.

An `InputGate` belongs to the receiving subtask and holds one queue for each sender. A full queue makes its sender wait:
back-pressure, which reaches the source by itself. The receiver also says how many records it can digest in a few
milliseconds (`preferred`); senders cut their batches to that, so that a slow receiver has few records in flight and a
clean stop has little to drain.

Control events of several senders are combined as in Flink: watermarks and statuses by a `WatermarkValve`, barriers by a
`BarrierAlignment`, the end when all have ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from sage.core.runtime.alignment import BarrierAlignment
from sage.core.runtime.bell import Bell
from sage.core.runtime.events import (
    Barrier,
    Batch,
    ControlEvent,
    EndOfStream,
    Item,
    JobAborted,
    LatencyMarker,
    LoopProbe,
    StreamStatus,
    Watermark,
)
from sage.core.runtime.valve import WatermarkValve

__all__ = ["InputGate"]


class InputGate:
    """The receiving end of one channel for each of `ports`, each holding at most `capacity` items.

    `ports[sender]` is the logical input (of a two-input operator) that the sender's records belong to.
    """

    def __init__(
        self,
        ports: Sequence[int],
        capacity: int,
        aborted: threading.Event,
        *,
        exactly_once: bool = True,
        alignment_timeout: float | None = None,
    ) -> None:
        senders = len(ports)
        self.preferred = 1
        self.taken = [0] * senders  # batches that came out, of each sender
        self._ports = tuple(ports)
        self._queues: list[deque[Item]] = [deque() for _ in range(senders)]
        self._capacity = capacity
        self._aborted = aborted
        self._lock = threading.Lock()
        self._arrived = Bell()
        self._rooms = [Bell() for _ in range(senders)]
        self._woken = False
        self._next = 0
        self._ended: set[int] = set()
        self._drained = True
        self._alignment = BarrierAlignment(
            self._queues, self._ports, exactly_once=exactly_once, timeout=alignment_timeout
        )
        self._restored: deque[tuple[int, Batch]] = deque()
        self._valve = WatermarkValve(senders)
        self._combined: deque[ControlEvent] = deque()
        self._probe: LoopProbe | None = None
        self._probed: set[int] = set()

    @property
    def depth(self) -> int:
        """Records that wait here."""
        return sum(len(item) for queue in list(self._queues) for item in list(queue) if isinstance(item, Batch))

    def put(self, sender: int, item: Item, *, force: bool = False) -> float:
        """Add an item at the end of a channel; waits for room unless `force` (what a barrier takes along when it
        overtakes). Returns the seconds waited. Raises JobAborted."""
        queue = self._queues[sender]
        waited = 0.0
        if len(queue) >= self._capacity and not force:
            waited = self._wait_for_room(sender)
        if self._aborted.is_set():
            raise JobAborted
        with self._lock:
            queue.append(item)
            if self._alignment.capture is not None or not isinstance(item, Batch):
                self._alignment.put(sender, item)
        self._arrived.ring()
        return waited

    def _wait_for_room(self, sender: int) -> float:
        queue, room = self._queues[sender], self._rooms[sender]
        started = time.monotonic()
        while len(queue) >= self._capacity and not self._aborted.is_set():
            room.arm()
            if len(queue) >= self._capacity and not self._aborted.is_set():
                room.sleep()
            else:
                room.disarm()
        return time.monotonic() - started

    def restore(self, records: Sequence[tuple[int, Batch]]) -> None:
        """Records that were on their way when the checkpoint was made, by port: they come out before all others."""
        self._restored.extend(records)

    def when_captured(self, checkpoint_id: int, told: Callable[[list[tuple[int, Batch]]], None]) -> bool:
        """Call `told` (soon, from any thread) with what that barrier has overtaken; False: it has overtaken nothing."""
        with self._lock:
            capture = self._alignment.capture
            if capture is None or capture.checkpoint_id != checkpoint_id:
                return False
            capture.when_complete(told)
            return True

    def checkpoint_aborted(self, checkpoint_id: int) -> None:
        """Nothing needs to be captured for it any more."""
        with self._lock:
            self._alignment.cancel(checkpoint_id)

    @property
    def alignment_s(self) -> float:
        """How long the last barrier took from its first channel to its last (or to overtaking)."""
        return self._alignment.seconds

    def take(self, timeout: float | None) -> tuple[int, Item] | None:
        """The next batch with its port, or a combined control event (port 0).

        None after `timeout` seconds without one, or when woken. Raises JobAborted.
        """
        while True:
            if self._aborted.is_set():
                raise JobAborted
            with self._lock:
                taken = self._next_item()
            if taken is not None:
                return taken
            if self._woken or not self._wait(timeout):
                self._woken = False
                return None

    def _next_item(self) -> tuple[int, Item] | None:
        """What comes out next; None while there is nothing."""
        while True:
            if self._combined:
                return 0, self._combined.popleft()
            if self._restored:
                return self._restored.popleft()
            barrier = self._alignment.overtaking()
            if barrier is not None:
                for room in self._rooms:  # it was taken out of its queues
                    room.ring()
                return 0, barrier
            sender = self._ready()
            if sender is None:
                return None
            item = self._queues[sender].popleft()
            self._rooms[sender].ring()
            if isinstance(item, Batch):
                self.taken[sender] += 1
                return self._ports[sender], item
            self._combined.extend(self._control(sender, item))

    def _wait(self, timeout: float | None) -> bool:
        """Until something arrives or a barrier must overtake; False after `timeout`."""
        self._arrived.arm()
        with self._lock:
            patience = self._alignment.patience
            ready = self._has_item() or patience == 0.0
        if ready or self._woken or self._aborted.is_set():
            self._arrived.disarm()
            return True
        if patience is not None and (timeout is None or patience < timeout):
            self._arrived.sleep(patience)
            return True
        return self._arrived.sleep(timeout)

    def wake(self) -> None:
        """Make `take` return soon; from any thread."""
        self._woken = True
        self._arrived.ring()

    def is_empty(self) -> bool:
        """Whether nothing waits in any channel."""
        return not any(self._queues)

    def abort(self) -> None:
        """Wake everyone who waits here; the shared `aborted` event must be set before."""
        for bell in (self._arrived, *self._rooms):
            bell.ring()

    def _has_item(self) -> bool:
        blocked = self._alignment.blocked
        return any(queue and sender not in blocked for sender, queue in enumerate(self._queues))

    def _ready(self) -> int | None:
        """A channel that holds something and is not held back by a barrier; channels take turns."""
        count, blocked = len(self._queues), self._alignment.blocked
        for step in range(count):
            sender = (self._next + step) % count
            if self._queues[sender] and sender not in blocked:
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
        if isinstance(event, LoopProbe):
            self._probe = event
            self._probed.add(sender)
            return self._probed_by_all()
        if isinstance(event, Barrier):
            return [*self._alignment.delivered(sender, event)]
        return self._end(sender, event)

    def _end(self, sender: int, event: EndOfStream) -> list[ControlEvent]:
        self._ended.add(sender)
        self._drained = self._drained and event.drained
        aligned = self._alignment.ended(sender)
        if len(self._ended) == len(self._queues):
            return [*aligned, EndOfStream(self._drained)]
        return [*aligned, *self._valve.ended(sender), *self._probed_by_all()]

    def _probed_by_all(self) -> list[ControlEvent]:
        """A probe holds up nothing; it comes out when it has come in from all that have not ended."""
        if self._probe is None or len(self._probed | self._ended) < len(self._queues):
            return []
        probe, self._probe = self._probe, None
        self._probed.clear()
        return [probe]

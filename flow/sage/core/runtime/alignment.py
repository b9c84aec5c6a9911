"""How the barriers of several channels become one (Carbone et al. 2015; unaligned ones: Flink FLIP-76).

Exactly-once: a channel that has delivered the barrier waits until all have. When that takes longer than a timeout, or
at once if the barrier says so, the barrier overtakes: it comes out now, and the records that it passes, in the queues
and still on their way, are captured as part of the snapshot. Savepoints, and what stops a job, never overtake.
At-least-once: no channel ever waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sage.core.checkpoint.in_flight import InFlight
from sage.core.runtime.events import Barrier, Batch, CheckpointKind, EndOfStream, Item

__all__ = ["BarrierAlignment", "Capture"]


@dataclass(slots=True)
class Capture:
    """The records that one barrier overtakes on its way into one subtask."""

    checkpoint_id: int
    records: InFlight = field(default_factory=list)
    missing: set[int] = field(default_factory=set)  # channels on which the barrier is still to come
    _told: Callable[[InFlight], None] | None = None

    def when_complete(self, told: Callable[[InFlight], None]) -> None:
        """Call `told` once nothing more can come, maybe now; it must return at once."""
        if self.missing:
            self._told = told
        else:
            told(self.records)

    def arrived(self, sender: int) -> None:
        """The barrier has come on this channel, or its end."""
        if sender in self.missing:
            self.missing.discard(sender)
            if not self.missing and self._told is not None:
                self._told(self.records)


class BarrierAlignment:
    """Of one gate; everything is called under its lock. `blocked` are the channels that wait."""

    def __init__(
        self,
        queues: Sequence[deque[Item]],
        ports: Sequence[int],
        *,
        exactly_once: bool = True,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blocked: set[int] = set()
        self.seconds = 0.0  # how long the last alignment took
        self.capture: Capture | None = None
        self._queues = queues
        self._ports = ports
        self._exactly_once = exactly_once
        self._timeout = timeout
        self._clock = clock
        self._waiting: Barrier | None = None  # a barrier that has come on some channels, maybe only into their queues
        self._since = 0.0
        self._arrived: set[int] = set()
        self._ended: set[int] = set()

    @property
    def patience(self) -> float | None:
        """Seconds until a barrier that is being aligned overtakes; None: there is nothing to wait for."""
        if self._waiting is None or not self._exactly_once or self._waiting.kind is not CheckpointKind.CHECKPOINT:
            return None
        if self._waiting.unaligned:
            return 0.0
        return None if self._timeout is None else max(0.0, self._since + self._timeout - self._clock())

    def put(self, sender: int, item: Item) -> None:
        """An item has come into a channel's queue."""
        capture = self.capture
        if isinstance(item, Barrier):
            if capture is not None and item.checkpoint_id == capture.checkpoint_id:
                self._queues[sender].remove(item)  # it has overtaken already
                capture.arrived(sender)
            elif self._waiting is None:
                self._waiting, self._since = item, self._clock()
            elif item.unaligned and item.checkpoint_id == self._waiting.checkpoint_id:
                self._waiting = item
        elif capture is not None and sender in capture.missing:
            if isinstance(item, Batch):
                capture.records.append((self._ports[sender], item))
            elif isinstance(item, EndOfStream):
                capture.arrived(sender)

    def delivered(self, sender: int, barrier: Barrier) -> list[Barrier]:
        """A channel has come to its barrier; the barrier, when that was the last.

        One older than that which waits is of a checkpoint that was aborted: it stands for nothing any more.
        """
        if self._waiting is not None and barrier.checkpoint_id < self._waiting.checkpoint_id:
            return []
        if self._waiting is None or barrier.checkpoint_id > self._waiting.checkpoint_id:
            self._waiting, self._since = barrier, self._clock()
            self._arrived.clear()
            self.blocked.clear()
        self._arrived.add(sender)
        if self._exactly_once:
            self.blocked.add(sender)
        return self._aligned()

    def ended(self, sender: int) -> list[Barrier]:
        """A channel has come to its end: no barrier is to come on it."""
        self._ended.add(sender)
        return self._aligned() if self._arrived else []

    def overtaking(self) -> Barrier | None:
        """The barrier, if it is to come out before what waits in front of it."""
        barrier = self._waiting
        if barrier is None or self.patience != 0.0:
            return None
        capture = self.capture = Capture(barrier.checkpoint_id)
        for sender, queue in enumerate(self._queues):
            if sender in self._arrived or sender in self._ended:
                continue
            passed = _before(queue, barrier.checkpoint_id)
            if passed is None:
                capture.missing.add(sender)
            capture.records += [
                (self._ports[sender], item) for item in (queue if passed is None else passed) if isinstance(item, Batch)
            ]
        self._finish()
        return replace(barrier, unaligned=True)

    def cancel(self, checkpoint_id: int) -> None:
        """The checkpoint was aborted: nothing is captured for it any more."""
        if self.capture is not None and self.capture.checkpoint_id == checkpoint_id:
            self.capture = None

    def _aligned(self) -> list[Barrier]:
        if self._waiting is None or len(self._arrived | self._ended) < len(self._queues):
            return []
        barrier = self._waiting
        self._finish()
        return [barrier]

    def _finish(self) -> None:
        """The barrier comes out; a later one may have come into a queue behind it already."""
        self.seconds = self._clock() - self._since
        self._arrived.clear()
        self.blocked.clear()
        later = [item for queue in self._queues for item in queue if isinstance(item, Barrier)]
        self._waiting = min(later, key=lambda item: item.checkpoint_id, default=None)
        self._since = self._clock()


def _before(queue: deque[Item], checkpoint_id: int) -> list[Item] | None:
    """What waits before that barrier, which is taken out; all before the end; None when neither is there."""
    for index, item in enumerate(queue):
        if isinstance(item, Barrier) and item.checkpoint_id == checkpoint_id:
            passed = [queue[position] for position in range(index)]
            del queue[index]
            return passed
        if isinstance(item, EndOfStream):
            return [queue[position] for position in range(index)]
    return None

"""Feedback edges: what the end of a loop is given comes out of its beginning (`env.from_future`, `fill_future`).

A loop is over when nothing is left in it, which nobody can see from one place. So its beginning sends a probe, which
passes a gate once it has come in from all channels that have not ended: that is after all other input has ended, and
behind all records that went before. When it comes to the end of the loop and nothing has been put in since it was sent,
the loop is empty; else another round begins. With several loops in a job all go round together.

For a checkpoint, the records that are on their way back belong to the state (Carbone et al. 2015, "cyclic dataflows"):
those that wait at the beginning when the barrier leaves it, and those that come until it has gone round.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.core.runtime.bell import Bell
from sage.core.runtime.events import Batch, EndOfStream, Item, JobAborted, LoopProbe, StreamStatus
from sage.core.runtime.operators.base import Operator

if TYPE_CHECKING:
    from sage.core.checkpoint.in_flight import InFlight

__all__ = ["FeedbackFactory", "FeedbackInput", "FeedbackLoops", "FeedbackOperator"]

_POLL = 0.05  # seconds; how soon a waiting beginning sees that the job is stopping


class FeedbackLoops:
    """All loops of one attempt at a job."""

    def __init__(self) -> None:
        self.round = 1
        self.over = False
        self._lock = threading.Lock()
        self._loops: dict[str, Loop] = {}
        self._reports = 0
        self._used = False  # something was put in since this round began

    def loop(self, name: str) -> Loop:
        """The loop of that name."""
        return self._loops.setdefault(name, Loop(self))

    def put_in(self) -> None:
        """A loop has been given records."""
        self._used = True

    def probed(self) -> None:
        """The probe of this round has come to the end of a loop, in one of its subtasks."""
        with self._lock:
            self._reports += 1
            if self._reports < sum(loop.ends for loop in self._loops.values()):
                return
            self._reports = 0
            if self._used:
                self._used = False
                self.round += 1
            else:
                self.over = True
        for loop in self._loops.values():
            loop.arrived.ring()


@dataclass(slots=True)
class _Capture:
    missing: int  # subtasks of the end to which the barrier is still to come
    records: InFlight
    told: Callable[[InFlight], None] | None = None


@dataclass(slots=True)
class Loop:
    """The way back of one loop. `ends`: the subtasks that feed it."""

    loops: FeedbackLoops
    ends: int = 0
    waiting: deque[Batch] = field(default_factory=deque)
    arrived: Bell = field(default_factory=Bell)
    _captures: dict[int, _Capture] = field(default_factory=dict)
    _early: dict[int, int] = field(default_factory=dict)  # checkpoint → ends to which its barrier came first
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, batch: Batch) -> None:
        """Records that are to go round again."""
        with self._lock:
            self.loops.put_in()
            self.waiting.append(batch)
            for capture in self._captures.values():
                capture.records.append((0, batch))
        self.arrived.ring()

    def barrier_left(self, checkpoint_id: int) -> None:
        """A barrier goes out at the beginning."""
        with self._lock:
            missing = self.ends - self._early.pop(checkpoint_id, 0)
            self._captures[checkpoint_id] = _Capture(missing, [(0, batch) for batch in self.waiting])

    def barrier_came(self, checkpoint_id: int) -> None:
        """It has come to the end, in one subtask."""
        with self._lock:
            capture = self._captures.get(checkpoint_id)
            if capture is not None:
                capture.missing -= 1
            else:  # an end that the beginning does not lead to
                self._early[checkpoint_id] = self._early.get(checkpoint_id, 0) + 1
        self._tell(checkpoint_id)

    def when_captured(self, checkpoint_id: int, told: Callable[[InFlight], None]) -> bool:
        """Call `told` once the barrier has gone round; False when nothing is captured for it."""
        capture = self._captures.get(checkpoint_id)
        if capture is None:
            return False
        capture.told = told
        self._tell(checkpoint_id)
        return True

    def forget(self, checkpoint_id: int) -> None:
        """The checkpoint was aborted."""
        with self._lock:
            self._captures.pop(checkpoint_id, None)
            self._early.pop(checkpoint_id, None)

    def _tell(self, checkpoint_id: int) -> None:
        with self._lock:
            capture = self._captures.get(checkpoint_id)
            if capture is None or capture.missing > 0 or capture.told is None:
                return
            del self._captures[checkpoint_id]
        capture.told(capture.records)


class FeedbackInput:
    """The beginning of a loop as a task's input. It counts for no watermark; `cancel` ends it at once."""

    can_replay = True
    captures = True
    alignment_s = 0.0

    def __init__(self, loop: Loop, stopping: threading.Event, aborted: threading.Event) -> None:
        self._loop = loop
        self._stopping = stopping
        self._aborted = aborted
        self._idle = False
        self._probed = 0
        self._woken = False

    @property
    def depth(self) -> int:
        """See TaskInput."""
        return sum(len(batch) for batch in list(self._loop.waiting))

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        """See TaskInput."""
        if not self._idle:
            self._idle = True
            return 0, StreamStatus(idle=True)
        waited = 0.0
        while True:
            item = self._next()
            if item is not None:
                return 0, item
            if self._woken or (timeout is not None and waited >= timeout):
                self._woken = False
                return None
            patience = _POLL if timeout is None else min(_POLL, timeout - waited)
            self._loop.arrived.arm()
            if self._has_item():
                self._loop.arrived.disarm()
            elif not self._loop.arrived.sleep(patience):
                waited += patience

    def _has_item(self) -> bool:
        loops = self._loop.loops
        return bool(self._loop.waiting) or self._woken or loops.over or loops.round > self._probed

    def _next(self) -> Item | None:
        if self._aborted.is_set():
            raise JobAborted
        loops = self._loop.loops
        if self._stopping.is_set() or loops.over:
            return EndOfStream()
        if self._loop.waiting:
            return self._loop.waiting.popleft()
        if loops.round > self._probed:
            self._probed = loops.round
            return LoopProbe(self._probed)
        return None

    def wake(self) -> None:
        """See TaskInput."""
        self._woken = True
        self._loop.arrived.ring()

    def close(self) -> None:
        """Nothing is held."""

    def restore(self, records: Sequence[tuple[int, Batch]]) -> None:
        """Records that were on their way back when the checkpoint was made."""
        for _, batch in records:
            self._loop.put(batch)

    def snapshot(self, checkpoint_id: int) -> None:
        """See InputPosition; the records themselves are captured."""
        if not (self._loop.loops.over or self._stopping.is_set()):
            self._loop.barrier_left(checkpoint_id)

    def notify_complete(self, checkpoint_id: int) -> None:
        """See InputPosition."""

    def when_captured(self, checkpoint_id: int, told: Callable[[InFlight], None]) -> bool:
        """As InputGate's."""
        return self._loop.when_captured(checkpoint_id, told)

    def checkpoint_aborted(self, checkpoint_id: int) -> None:
        """As InputGate's."""
        self._loop.forget(checkpoint_id)


class FeedbackOperator(Operator):
    """The end of a loop: gives its records to the beginning. `loop` is set before it opens."""

    loop: Loop

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        self.loop.put(batch)

    def on_probe(self) -> None:
        """See Operator."""
        self.loop.loops.probed()

    def prepare_snapshot(self, checkpoint_id: int) -> None:
        """The barrier has gone round."""
        self.loop.barrier_came(checkpoint_id)


@dataclass(slots=True, frozen=True)
class FeedbackFactory:
    """Makes the ends of the loop that begins at the future of that name."""

    name: str

    def __call__(self) -> Operator:
        return FeedbackOperator()

"""A bounded queue in front of one engine: so many requests run, so many wait, the next one is refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class QueueFull(Exception):  # noqa: N818 - named like queue.Full
    """The queue holds as many requests as it may; `retry_after` says in how many seconds a place should be free."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


@dataclass(slots=True)
class AdmissionQueue:
    """First come, first served. `acquire` and `release` bracket a request's work; a waiter that is cancelled leaves.

    `clock` returns seconds; it is a parameter so that tests can move it.
    """

    max_running: int = 64
    max_waiting: int = 256
    clock: Callable[[], float] = time.monotonic
    running: int = 0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    _mean_seconds: float = 1.0

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    @property
    def outstanding(self) -> int:
        """Return how many requests run or wait."""
        return self.running + len(self._waiting)

    async def acquire(self) -> float:
        """Return the time of admission once the request may run; raises QueueFull at once when too many wait."""
        if self.running < self.max_running and not self._waiting:
            self.running += 1
            return self.clock()
        if len(self._waiting) >= self.max_waiting:
            raise QueueFull(self._retry_after())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._hand_on()  # admitted and cancelled at the same moment: the next one gets the place
            elif place in self._waiting:  # else its turn had come already, and passed to the next one
                self._waiting.remove(place)
            raise
        return self.clock()

    def release(self, admitted_at: float) -> None:
        """Give the place to the next one; `admitted_at` is what `acquire` returned."""
        self._mean_seconds = 0.9 * self._mean_seconds + 0.1 * (self.clock() - admitted_at)
        self._hand_on()

    def _hand_on(self) -> None:
        """Free one place."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def _retry_after(self) -> int:
        """Return in how many seconds a place should be free, from how fast requests have left lately: 1 to 60."""
        seconds = self._mean_seconds * (len(self._waiting) + 1) / max(1, self.max_running)
        return max(1, min(60, math.ceil(seconds)))

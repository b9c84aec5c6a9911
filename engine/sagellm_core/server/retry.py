"""When a refused client should try again, from how fast requests have left lately."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

_LONGEST = 60
_WEIGHT = 0.2


class DrainRate:
    """Each request that leaves frees one place. Clients refused since the last one are told different times.

    The pause between two departures is averaged exponentially; a pause that goes on counts as long as it is by now.
    `clock` returns seconds; it is a parameter so that tests can move it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._pause: float | None = None
        self._refused = 0

    def departed(self) -> None:
        """A request has ended, however."""
        now = self._clock()
        if self._last is not None:
            pause = now - self._last
            self._pause = pause if self._pause is None else (1 - _WEIGHT) * self._pause + _WEIGHT * pause
        self._last = now
        self._refused = max(0, self._refused - 1)

    def refused(self) -> int:
        """Seconds (1 to 60) after which the client that is refused now should find a place."""
        self._refused += 1
        waited = 0.0 if self._last is None else self._clock() - self._last
        pause = max(self._pause or 1.0, waited)
        return max(1, min(_LONGEST, math.ceil(round(pause * self._refused, 3))))

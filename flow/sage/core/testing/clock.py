"""A clock that moves only when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sage.core.api.units import parse_duration
from sage.core.runtime import session

__all__ = ["ManualClock", "virtual_time"]


class ManualClock:
    """A `sage.core.runtime.clock.Clock` that stands still; `now` is in milliseconds.

    >>> clock = ManualClock(1000)
    >>> clock.advance("2s")
    >>> clock.now_ms(), clock.monotonic()
    (3000, 3.0)
    """

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        """Processing time."""
        return self.now

    def monotonic(self) -> float:
        """The same in seconds."""
        return self.now / 1000

    def advance(self, duration: str | float) -> None:
        """Move on by a duration ("10s", or milliseconds), and wake the tasks that go by this clock."""
        self.now += round(parse_duration(duration) * 1000)
        for listener in list(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each move; the runtime does this for its tasks."""
        self._listeners.append(listener)


@contextmanager
def virtual_time(clock: ManualClock | None = None) -> Iterator[ManualClock]:
    """Jobs that are submitted inside go by a clock that the test moves: processing timers and windows, periodic
    checkpoints, state that expires. Buffers, deadlines and restart delays keep to real time.

    >>> from sage.core.api import LocalEnvironment
    >>> from sage.core.api.windows import TumblingProcessingTimeWindows
    >>> env, source, out = LocalEnvironment("virtual"), MarkedSource(["a", "a", PAUSE, "a"]), []
    >>> words, hourly = env.from_source(source), TumblingProcessingTimeWindows.of("1h")
    >>> sink = words.key_by(lambda word: word).window(hourly).count().sink(out.append)
    >>> with virtual_time() as clock:
    ...     handle = env.submit(block=False)
    ...     source.wait_until_paused()
    ...     clock.advance("2h")
    ...     source.proceed()
    ...     state = handle.wait()
    >>> [result.value for result in out]
    [2]
    """
    used = clock or ManualClock()
    with session.use(replace(session.current(), clock=used)):
        yield used

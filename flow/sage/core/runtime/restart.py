"""Restart strategies: whether a failed job starts again, and after how long (Flink's "Task Failure Recovery")."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from sage.core.runtime.settings import RestartKind, RestartSettings

__all__ = ["RestartStrategy", "restart_strategy"]


class RestartStrategy(Protocol):
    """Asked after each failure; `now` in seconds of a monotonic clock."""

    def delay_after_failure(self, now: float) -> float | None:
        """Seconds until the next attempt; None: the job has failed."""


def restart_strategy(settings: RestartSettings, chance: Callable[[], float] = random.random) -> RestartStrategy:
    """The strategy of the settings; `chance` gives numbers in [0, 1) for the jitter."""
    if settings.kind is RestartKind.FIXED_DELAY:
        return FixedDelay(settings)
    if settings.kind is RestartKind.EXPONENTIAL_DELAY:
        return ExponentialDelay(settings, chance)
    if settings.kind is RestartKind.FAILURE_RATE:
        return FailureRate(settings)
    return NoRestart()


class NoRestart:
    """The first failure is the job's."""

    def delay_after_failure(self, now: float) -> float | None:
        return None


class FixedDelay:
    """At most `attempts` restarts, each after `delay` seconds."""

    def __init__(self, settings: RestartSettings) -> None:
        self._settings = settings
        self._failures = 0

    def delay_after_failure(self, now: float) -> float | None:
        self._failures += 1
        allowed = self._settings.attempts
        return self._settings.delay if allowed is None or self._failures <= allowed else None


class ExponentialDelay:
    """The delay grows from `delay` by `multiplier` up to `max_delay`, spread by `jitter` (a share of it).

    A job that ran for `reset_after` seconds without a failure begins anew, with its attempts too.
    """

    def __init__(self, settings: RestartSettings, chance: Callable[[], float]) -> None:
        self._settings = settings
        self._chance = chance
        self._failures = 0
        self._delay = settings.delay
        self._resumed: float | None = None

    def delay_after_failure(self, now: float) -> float | None:
        settings = self._settings
        if self._resumed is not None and now - self._resumed >= settings.reset_after:
            self._failures, self._delay = 0, settings.delay
        self._failures += 1
        if settings.attempts is not None and self._failures > settings.attempts:
            return None
        current = min(self._delay, settings.max_delay)
        self._delay = min(self._delay * settings.multiplier, settings.max_delay)
        spread = current * settings.jitter
        delay = min(settings.max_delay, max(0.0, current + spread * (2.0 * self._chance() - 1.0)))
        self._resumed = now + delay
        return delay


class FailureRate:
    """Restarts after `delay` seconds unless more than `failures` fell into the last `interval` seconds."""

    def __init__(self, settings: RestartSettings) -> None:
        self._settings = settings
        self._times: deque[float] = deque()

    def delay_after_failure(self, now: float) -> float | None:
        self._times.append(now)
        while self._times and now - self._times[0] > self._settings.interval:
            self._times.popleft()
        return self._settings.delay if len(self._times) <= self._settings.failures else None

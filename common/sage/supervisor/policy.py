"""When to restart a daemon, and when to give up: pure rules, no clock and no process of their own.

Delays grow exponentially with full jitter: uniform over [0, min(cap, base * 2**n)] (M. Brooker, "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015), so that daemons which fell together do not rise together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["HealthPolicy", "Probe", "RestartPolicy", "Tuning", "Verdict"]


class Probe(StrEnum):
    """What a look at /health showed."""

    OK = "ok"
    NOT_READY = "not-ready"  # it answers, and says that it cannot serve now
    SICK = "sick"  # it answers, and says that it is broken
    SILENT = "silent"  # no connection or no answer in time


class Verdict(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    RESTART = "restart"


@dataclass(slots=True, frozen=True)
class Tuning:
    """Every number of the supervisor. Seconds, but for counts and bytes."""

    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    crash_limit: int = 5
    crash_window_s: float = 60.0
    stable_after_s: float = 60.0
    probe_interval_s: float = 2.0
    probe_timeout_s: float = 5.0
    ready_poll_s: float = 0.1
    failures_to_unhealthy: int = 3
    failures_to_restart: int = 6
    log_max_bytes: int = 10 * 1024 * 1024
    log_backups: int = 3
    log_check_s: float = 5.0
    idle_exit_s: float = 600.0


@dataclass(slots=True)
class RestartPolicy:
    """Counts crashes of one daemon and says how long to wait before the next start.

    `jitter(a, b)` draws from the uniform distribution over [a, b]. A daemon is in a crash loop after `crash_limit`
    crashes within `crash_window_s`, or after as many in a row that never became ready (a slow start would else crash
    for ever, never often enough for the window).
    """

    tuning: Tuning
    jitter: Callable[[float, float], float]
    attempt: int = 0
    _crashes: deque[float] = field(default_factory=deque)
    _unready: int = 0
    _ready_at: float | None = None

    def ready(self, now: float) -> None:
        """The daemon became ready."""
        self._ready_at = now
        self._unready = 0

    def crashed(self, now: float) -> float | None:
        """The daemon ended by itself: seconds to wait before the next start, or None for a crash loop."""
        if self._ready_at is None:
            self._unready += 1
        elif now - self._ready_at >= self.tuning.stable_after_s:
            self.reset()
        self._ready_at = None
        self._crashes.append(now)
        while self._crashes[0] <= now - self.tuning.crash_window_s:
            self._crashes.popleft()
        if max(len(self._crashes), self._unready) >= self.tuning.crash_limit:
            return None
        ceiling = min(self.tuning.backoff_cap_s, self.tuning.backoff_base_s * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return self.jitter(0.0, ceiling)

    def reset(self) -> None:
        """Forget every crash: the daemon has run well, or a person asked for a new start."""
        self.attempt = 0
        self._unready = 0
        self._ready_at = None
        self._crashes.clear()


@dataclass(slots=True)
class HealthPolicy:
    """Judges a daemon that was ready by its probes.

    `restart_sick`: whether a daemon that calls itself unhealthy is restarted. Not so for the gateway, which is
    unhealthy while the engines behind it are: its restart would heal nothing and break what still works.
    """

    tuning: Tuning
    restart_sick: bool = True
    _silent: int = 0
    _sick: int = 0
    _last: Verdict = Verdict.HEALTHY

    def seen(self, probe: Probe) -> Verdict:
        """Count one probe and judge."""
        self._silent = self._silent + 1 if probe is Probe.SILENT else 0
        self._sick = self._sick + 1 if probe is Probe.SICK else 0
        if self._silent >= self.tuning.failures_to_restart:
            return Verdict.RESTART
        if self.restart_sick and self._sick >= self.tuning.failures_to_restart:
            return Verdict.RESTART
        if probe is Probe.OK:
            self._last = Verdict.HEALTHY
        elif probe is not Probe.SILENT or self._silent >= self.tuning.failures_to_unhealthy:
            self._last = Verdict.UNHEALTHY
        return self._last  # a little silence changes nothing

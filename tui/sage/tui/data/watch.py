"""Watching one daemon over time: its answers, its numbers, how old they are, what it costs."""

from __future__ import annotations

from collections import deque

from sage.common.stack import DaemonStatus
from sage.tui.data.meter import Meter, group
from sage.tui.data.model import DaemonView, Freshness
from sage.tui.data.scrape import Answer, Scraper
from sage.tui.data.system import HISTORY, ProcessUse
from sage.tui.data.views import TRACKED

__all__ = ["Watch"]

STALE_AFTER_S = 3.0
"""A single missed answer on a busy machine is not yet worth an alarm."""


class Watch:
    """Follows the daemon ``name`` through restarts: a new pid or address starts its numbers anew."""

    def __init__(self, record: DaemonStatus, timeout_s: float) -> None:
        self.record = record
        self.answer = Answer()
        self.meter = Meter()
        self._timeout = timeout_s
        self._scraper = Scraper(record.url, timeout_s)
        self._use = ProcessUse(record.pid)
        self._cost: tuple[float | None, int | None] = (None, None)
        self._kind = record.kind
        self._past: dict[str, deque[float]] = {name: deque(maxlen=HISTORY) for name in TRACKED.get(record.kind, ())}

    def follow(self, record: DaemonStatus) -> None:
        """Take over the newest record."""
        if record.url != self.record.url:
            self._scraper.close()
            self._scraper = Scraper(record.url, self._timeout)
        if record.pid != self.record.pid:
            self._use = ProcessUse(record.pid)
            if record.pid:
                self.meter = Meter()
        self.record = record

    def ask(self, now: float) -> None:
        """Ask the daemon once; may take as long as the scraper's timeouts. Not called from the screen's thread."""
        if not self.record.running:
            self._scraper.close()
            self.answer, self._cost = Answer(problem="not running"), (None, None)
            return
        self._cost = self._use.read()
        self.answer = self._scraper.ask()
        if self.answer.metrics is not None:
            try:
                self.meter.add(now, group(self.answer.metrics))
            except ValueError:
                self.answer = Answer(self.answer.health, self.answer.reason, problem="metrics not understood")

    def remember(self) -> None:
        """Append this moment to the recent past of the numbers that are drawn as lines."""
        live = self.answer.metrics is not None
        for name, values in self._past.items():
            number = TRACKED[self._kind][name](self.meter) if live else None
            values.append(number or 0.0)

    @property
    def past(self) -> dict[str, tuple[float, ...]]:
        """The recent past, name → values, oldest first."""
        return {name: tuple(values) for name, values in self._past.items()}

    def fresh(self, now: float) -> Freshness:
        """How old the numbers are at ``now``."""
        updated = self.meter.updated_at
        if updated is None:
            return Freshness(None, stale=bool(self.answer.problem), reason=self.answer.problem)
        age = max(0.0, now - updated)
        gone = not self.record.running
        return Freshness(age, stale=gone or age > STALE_AFTER_S, reason=self.answer.problem)

    @property
    def state(self) -> str:
        """The recorded state, corrected by what the daemon answered."""
        if self.record.state != "ready":
            return self.record.state
        if self.answer.health == "ok":
            return "ready"
        return self.answer.health if self.answer.health in {"starting", "unhealthy"} else "unhealthy"

    def view(self, now: float, wall: float) -> DaemonView:
        """The daemon as the dashboard shows it; ``wall`` is the time of day that uptime is counted from."""
        record = self.record
        started = record.started_at if record.running else None
        return DaemonView(
            name=record.name,
            kind=record.kind,
            state=self.state,
            pid=record.pid or None,
            url=record.url,
            port=record.port or None,
            model=record.model,
            restarts=record.restarts,
            uptime_s=None if started is None else max(0.0, wall - started),
            cpu=self._cost[0],
            rss=self._cost[1],
            log=record.log,
            last_error=record.last_error or (self.answer.reason if self.state == "unhealthy" else ""),
            exit_code=record.exit_code,
            health=self.answer.health or self.answer.problem,
            fresh=self.fresh(now),
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._scraper.close()

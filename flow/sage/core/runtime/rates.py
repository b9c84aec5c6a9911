"""Rates and shares of time out of two looks at counters that only grow."""

from __future__ import annotations

from dataclasses import dataclass

from sage.core.graph.spec import OperatorKind
from sage.core.runtime.metrics import JobMetrics, OperatorMetrics

__all__ = ["OperatorRates", "RateMeter"]


@dataclass(slots=True, frozen=True)
class OperatorRates:
    """An operator since the last look: records a second (those that a source gives, else those that come in), and the
    shares (0 to 1, of the time of all its subtasks) in which it was busy, its task idle, and its task back-pressured.
    """

    rate: float
    busy: float
    idle: float
    blocked: float


class RateMeter:
    """Remembers the last look. After a restart, which sets the counters back, rates begin anew."""

    def __init__(self) -> None:
        self._at = 0.0
        self._records = 0
        self._rows: dict[str, tuple[int, float, float, float]] = {}

    def add(self, at: float, metrics: JobMetrics) -> tuple[float, dict[str, OperatorRates]]:
        """Records read a second, and each operator, since the last call; `at` in seconds of any clock."""
        span = at - self._at
        rate = max(0.0, (metrics.records_in - self._records) / span) if span > 0 else 0.0
        rates = {row.operator: self._rates(row, span) for row in metrics.operators}
        self._at, self._records = at, metrics.records_in
        self._rows = {row.operator: _counters(row) for row in metrics.operators}
        return rate, rates

    def _rates(self, row: OperatorMetrics, span: float) -> OperatorRates:
        if span <= 0:
            return OperatorRates(0.0, 0.0, 0.0, 0.0)
        before = self._rows.get(row.operator, (0, 0.0, 0.0, 0.0))
        now = _counters(row)
        records, busy, idle, blocked = (max(0.0, a - b) / span for a, b in zip(now, before, strict=True))
        return OperatorRates(records, *(min(1.0, share / row.parallelism) for share in (busy, idle, blocked)))


def _counters(row: OperatorMetrics) -> tuple[int, float, float, float]:
    records = row.records_out if row.kind == OperatorKind.SOURCE else row.records_in
    return records, row.busy_s, row.idle_s, row.blocked_s

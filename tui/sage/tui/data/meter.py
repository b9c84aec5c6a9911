"""Rates and quantiles out of a daemon's counters and histograms, over a sliding window.

A counter that goes down means that the daemon was restarted: the window starts anew, so no rate is ever negative.
Quantiles are those of what was observed inside the window, as ``histogram_quantile`` of PromQL computes them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from sage.common.prometheus import parse, quantile
from sage.tui.data.model import Quantiles

__all__ = ["Labels", "Meter", "Rates", "Samples", "group"]

Labels = Mapping[str, str]
Samples = dict[str, list[tuple[Labels, float]]]
Match = Callable[[Labels], bool]

RATE_WINDOW_S = 5.0
QUANTILE_WINDOW_S = 60.0


def group(text: str) -> Samples:
    """Prometheus text as ``name → [(labels, value)]``, SAGE's own families only."""
    families: Samples = {}
    for (name, labels), value in parse(text).items():
        if name.startswith("sage_") and not math.isnan(value):
            families.setdefault(name, []).append((_mapping(labels), value))
    return families


@lru_cache(maxsize=4096)
def _mapping(labels: tuple[tuple[str, str], ...]) -> Labels:
    """One mapping for the labels of all scrapes: a minute of them is held."""
    return dict(labels)


def total(samples: Samples, name: str, match: Match | None = None) -> float | None:
    """The sum over a family's series (those that ``match``); None when the family is not there."""
    series = samples.get(name)
    if series is None:
        return None
    return sum(value for labels, value in series if match is None or match(labels))


def _buckets(samples: Samples, name: str, match: Match | None) -> dict[float, float]:
    merged: dict[float, float] = {}
    for labels, value in samples.get(f"{name}_bucket", ()):
        if match is None or match(labels):
            bound = float(labels.get("le", "inf"))
            merged[bound] = merged.get(bound, 0.0) + value
    return merged


class Rates:
    """Rates of a few growing numbers that belong together (a job's records in and out)."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window = window_s
        self._points: deque[tuple[float, tuple[float, ...]]] = deque()

    def add(self, now: float, values: Iterable[float]) -> None:
        """Record the numbers at ``now``; the same moment twice, or a number that fell, starts anew."""
        point = tuple(values)
        if self._points:
            last_at, last = self._points[-1]
            if now <= last_at and point == last:
                return
            if now <= last_at or len(point) != len(last) or any(a < b for a, b in zip(point, last, strict=True)):
                self._points.clear()
        self._points.append((now, point))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window:
            self._points.popleft()

    def per_second(self, index: int = 0) -> float | None:
        """Growth per second over the window; None until there are two points."""
        if len(self._points) < 2:
            return None
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last[index] - first[index]) / (end - start)


class Meter:
    """One daemon's samples over the last minute."""

    def __init__(self, *, rate_window_s: float = RATE_WINDOW_S, quantile_window_s: float = QUANTILE_WINDOW_S) -> None:
        self._rate_window = rate_window_s
        self._quantile_window = quantile_window_s
        self._points: deque[tuple[float, Samples]] = deque()

    @property
    def updated_at(self) -> float | None:
        """When the newest samples came, in the clock that ``add`` was given."""
        return self._points[-1][0] if self._points else None

    def add(self, now: float, samples: Samples) -> None:
        """Record one scrape; forget all earlier ones when a counter went down."""
        if self._points and self._restarted(samples):
            self._points.clear()
        if self._points and now <= self._points[-1][0]:
            self._points.pop()  # the same moment again: the newer samples stand for it
        self._points.append((now, samples))
        while len(self._points) > 2 and now - self._points[1][0] >= self._quantile_window:
            self._points.popleft()

    def _restarted(self, samples: Samples) -> bool:
        last = self._points[-1][1]
        return any(
            name.endswith(("_total", "_count")) and (total(samples, name) or 0.0) < (total(last, name) or 0.0)
            for name in last
        )

    def value(self, name: str, match: Match | None = None) -> float | None:
        """The newest value of a gauge or counter, summed over its series."""
        return total(self._points[-1][1], name, match) if self._points else None

    def labels(self, name: str, label: str) -> list[str]:
        """The values that ``label`` has in a family, sorted."""
        if not self._points:
            return []
        return sorted({labels.get(label, "") for labels, _ in self._points[-1][1].get(name, ())} - {""})

    def _since(self, window_s: float) -> tuple[float, Samples] | None:
        """The oldest point inside the window (or the last one before the newest)."""
        if len(self._points) < 2:
            return None
        newest = self._points[-1][0]
        earlier = list(self._points)[:-1]
        return next((point for point in earlier if newest - point[0] <= window_s), earlier[-1])

    def growth(self, name: str, match: Match | None = None, *, window_s: float | None = None) -> float | None:
        """How much a counter grew inside the window (the rate window by default)."""
        start = self._since(window_s or self._rate_window)
        newest = self.value(name, match)
        if start is None or newest is None:
            return None
        return newest - (total(start[1], name, match) or 0.0)

    def rate(self, name: str, match: Match | None = None) -> float | None:
        """A counter's growth per second over the rate window; None until there are two scrapes."""
        start = self._since(self._rate_window)
        grown = self.growth(name, match)
        if start is None or grown is None:
            return None
        return grown / (self._points[-1][0] - start[0])

    def quantiles(self, name: str, match: Match | None = None) -> Quantiles:
        """P50, P95 and P99 of what was observed in the window; of all since the start when it saw nothing."""
        if not self._points:
            return Quantiles()
        everything = _buckets(self._points[-1][1], name, match)
        start = self._since(self._quantile_window)
        if start is not None:
            before = _buckets(start[1], name, match)
            recent = {bound: value - before.get(bound, 0.0) for bound, value in everything.items()}
            if max(recent.values(), default=0.0) > 0:
                return _quantiles(recent, self._quantile_window)
        return _quantiles(everything, 0.0)

    def mean(self, name: str) -> float | None:
        """The mean observation of a histogram in the window; of all since the start when it saw nothing."""
        count = self.growth(f"{name}_count", window_s=self._quantile_window)
        summed = self.growth(f"{name}_sum", window_s=self._quantile_window)
        if not count:
            count, summed = self.value(f"{name}_count"), self.value(f"{name}_sum")
        return summed / count if count and summed is not None else None


def _quantiles(buckets: Mapping[float, float], window_s: float) -> Quantiles:
    ordered = sorted(buckets.items())
    return Quantiles(
        p50=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        count=int(ordered[-1][1]) if ordered else 0,
        window_s=window_s,
    )

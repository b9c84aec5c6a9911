"""Reading Prometheus' text format: what the dashboard and the shell need of a daemon's /metrics, and no more."""

from __future__ import annotations

import math
import re

__all__ = ["Labels", "Samples", "parse", "quantile"]

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]

_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)\s*(?:\{(.*)\})?\s*(\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")


def parse(text: str) -> Samples:
    """{(name, ((label, value), …) sorted by label): value}. Comments and lines that make no sense are left out."""
    samples: Samples = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[3])  # understands +Inf, -Inf and NaN
        except ValueError:
            continue
        samples[match[1], _labels(match[2] or "")] = value
    return samples


def _labels(text: str) -> Labels:
    if not text:
        return ()
    return tuple(sorted((name, _ESCAPE.sub(_unescape, value)) for name, value in _LABEL.findall(text)))


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def quantile(buckets: list[tuple[float, float]], q: float) -> float | None:
    """The q-quantile (0..1) of cumulative buckets, linear within a bucket as in PromQL's histogram_quantile.

    None when nothing was observed. In the last, open bucket the answer is that bucket's lower bound.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = q * buckets[-1][1]
    below_bound, below_count = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > below_count:
            if math.isinf(bound):
                return below_bound
            return below_bound + (bound - below_bound) * (rank - below_count) / (count - below_count)
        below_bound, below_count = bound, count
    return below_bound

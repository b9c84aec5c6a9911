"""Pieces of text that the panels are made of: labelled values, gauges, quantile rows, state marks.

Colours are names of the theme (``$success`` …), so that every theme fits; a state always has a symbol too, so that
nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content

from sage.tui.data.model import Freshness, Quantiles
from sage.tui.format import age, bar, clip, latency, percent

__all__ = [
    "MARKS",
    "Piece",
    "dim",
    "fields",
    "gauge",
    "line",
    "mark",
    "quantile_head",
    "quantile_row",
    "stack",
    "stale",
]

Piece = str | Content | tuple[str, str]

MARKS: dict[str, tuple[str, str]] = {
    "ready": ("●", "success"),
    "running": ("●", "success"),
    "finished": ("✓", "success"),
    "created": ("◌", "warning"),
    "starting": ("◌", "warning"),
    "stopping": ("◌", "warning"),
    "backing-off": ("↻", "warning"),
    "unhealthy": ("▲", "warning"),
    "cancelled": ("○", "muted"),
    "stopped": ("○", "muted"),
    "crash-loop": ("✖", "error"),
    "dead": ("✖", "error"),
    "failed": ("✖", "error"),
    "lost": ("✖", "error"),
}
"""State → (symbol, colour): the symbol alone tells good, changing, at rest and bad apart."""

_STYLES = {"success": "$text-success", "warning": "$text-warning", "error": "$text-error", "muted": "$foreground-muted"}


def line(*parts: Piece) -> Content:
    """One line out of texts and ``(text, style)`` pairs."""
    return Content.assemble(*parts)


def stack(lines: Iterable[Content]) -> Content:
    """Lines one below the other."""
    return Content("\n").join(lines)


def dim(text: str) -> tuple[str, str]:
    """Text that explains rather than tells."""
    return (text, "$foreground-muted")


def mark(state: str) -> Content:
    """A state with its symbol and colour."""
    symbol, colour = MARKS.get(state, ("?", "muted"))
    return Content.assemble((f"{symbol} {state}", _STYLES[colour]))


def fields(pairs: Sequence[tuple[str, str]], width: int, each: int | None = None) -> Content:
    """Labelled values side by side, each in a column of equal width with the value at its right edge."""
    gap = 2
    each = each or max(6, (width - gap * (len(pairs) - 1)) // max(1, len(pairs)))
    parts: list[Piece] = []
    for index, (label, value) in enumerate(pairs):
        room = max(1, each - len(value) - 1)
        name = clip(label, room)
        parts += [dim(name), " " * max(1, each - len(name) - len(value)), (value, "bold")]
        if index < len(pairs) - 1:
            parts.append(" " * gap)
    return Content.assemble(*parts)


def gauge(label: str, ratio: float | None, width: int, *, label_width: int = 5) -> Content:
    """``label ██████▏      42%``: a bar that turns to the warning and error colours as it fills."""
    room = max(4, width - label_width - 5)
    level = ratio or 0.0
    colour = "$error" if level >= 0.9 else "$warning" if level >= 0.75 else "$primary"
    return Content.assemble(
        dim(label.ljust(label_width)), (bar(ratio, room), f"{colour} on $panel"), (percent(ratio).rjust(5), "bold")
    )


_LABEL = 7


def quantile_head(width: int) -> Content:
    """The heading over quantile rows."""
    each = _quantile_width(width)
    names = "".join(name.rjust(each) for name in ("P50", "P95", "P99"))
    return line(dim(names.rjust(width)))


def quantile_row(label: str, values: Quantiles, width: int) -> Content:
    """One latency's quantiles; dim when they cover all time since the start rather than the last minute."""
    each = _quantile_width(width)
    style = "" if values.window_s else "$foreground-muted"
    cells = "".join(latency(value).rjust(each) for value in (values.p50, values.p95, values.p99))
    return line(dim(label.ljust(width - len(cells))), (cells, style))


def _quantile_width(width: int) -> int:
    return max(8, (width - _LABEL) // 3)


def stale(fresh: Freshness) -> str:
    """What a panel's corner says about the age of its numbers: nothing while they are fresh."""
    if not fresh.stale:
        return ""
    old = f"stale {age(fresh.age_s)}" if fresh.age_s is not None else "no data"
    return f"{old} · {fresh.reason}" if fresh.reason else old

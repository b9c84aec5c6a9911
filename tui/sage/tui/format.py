"""Numbers as people read them: short, aligned, the same in the dashboard and in its headless twin.

Every function takes ``None`` for "not known" and then gives a dash, so that callers need no branches.
"""

from __future__ import annotations

__all__ = [
    "age",
    "bar",
    "chart",
    "clean",
    "clip",
    "count",
    "duration",
    "latency",
    "number_of",
    "percent",
    "rate",
    "size",
    "spark",
]

DASH = "–"
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"


def count(value: float | None) -> str:
    """A quantity in at most five characters: ``999``, ``12.3k``, ``4.1M``."""
    if value is None:
        return DASH
    for limit, divisor, unit in ((1e4, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "G")):
        if abs(value) < limit:
            scaled = value / divisor
            return f"{scaled:.0f}{unit}" if not unit or scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:.1e}"


def number_of(value: float | None, what: str) -> str:
    """A quantity of something: ``1 error``, ``13 errors``, ``– errors``."""
    return f"{count(value)} {what}{'s' * (value != 1)}"


def rate(value: float | None) -> str:
    """A number per second in at most six characters, without the unit: ``0``, ``3.25``, ``48.1``, ``12.3k``."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    if value < 10:
        return f"{value:.2f}"
    if value < 1000:
        return f"{value:.1f}"
    return count(value) if value >= 1e4 else f"{value:.0f}"


def latency(seconds: float | None) -> str:
    """A time from micro- to kiloseconds: ``850 µs``, ``12.4 ms``, ``340 ms``, ``1.25 s``."""
    if seconds is None:
        return DASH
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        millis = seconds * 1000
        return f"{millis:.1f} ms" if millis < 100 else f"{millis:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def duration(seconds: float | None) -> str:
    """A span of time in two units at most: ``12s``, ``3m 04s``, ``2h 10m``, ``5d 03h``."""
    if seconds is None:
        return DASH
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def age(seconds: float) -> str:
    """How old something is: ``3s``; below a second it is simply ``now``."""
    return "now" if seconds < 1 else duration(seconds)


def size(value: float | None) -> str:
    """Bytes in binary units: ``512 B``, ``1.4 GiB``."""
    if value is None:
        return DASH
    scaled, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while scaled >= 1024 and len(units) > 1:
        scaled /= 1024
        units.pop(0)
    return f"{scaled:.0f} {units[0]}" if units[0] == "B" or scaled >= 100 else f"{scaled:.1f} {units[0]}"


def percent(ratio: float | None) -> str:
    """A ratio (0 to 1) as ``42%``; below one per cent with one decimal."""
    if ratio is None:
        return DASH
    value = ratio * 100
    return f"{value:.1f}%" if 0 < value < 1 else f"{value:.0f}%"


def clip(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells, with an ellipsis where something was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def clean(text: str, limit: int = 2000) -> str:
    """One printable line: escape sequences and control characters taken out, tabs widened, cut at ``limit``."""
    if "\x1b" in text:
        text = _without_escapes(text)
    return "".join(c for c in text.expandtabs(4) if c.isprintable())[:limit]


def _without_escapes(text: str) -> str:
    """Drop CSI (``ESC [ … letter``) and OSC (``ESC ] … BEL``) sequences: a log must not steer the terminal."""
    head, *rest = text.split("\x1b")
    kept = [head]
    for part in rest:
        if part.startswith("["):
            end = next((i for i, c in enumerate(part[1:], 1) if "@" <= c <= "~"), len(part))
            kept.append(part[end + 1 :])
        elif part.startswith("]"):
            kept.append(part.partition("\x07")[2])
        else:
            kept.append(part[1:])
    return "".join(kept)


def bar(ratio: float | None, width: int) -> str:
    """A horizontal gauge of ``width`` cells, to an eighth of a cell; blank when the ratio is not known."""
    if ratio is None or width <= 0:
        return " " * max(0, width)
    eighths = round(min(1.0, max(0.0, ratio)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(width)


def spark(values: tuple[float, ...], width: int, *, top: float | None = None) -> str:
    """The last ``width`` values as a line of blocks, newest at the right.

    Zero is an empty cell's baseline ``▁``; the scale ends at ``top``, by default the largest value shown.
    """
    if width <= 0:
        return ""
    shown = values[-width:]
    peak = top if top is not None else max(shown, default=0.0)
    cells = ["▁" if peak <= 0 or v <= 0 else _BLOCKS[max(1, min(8, round(v / peak * 8)))] for v in shown]
    return "".join(cells).rjust(width)


def chart(values: tuple[float, ...], width: int, height: int, *, top: float | None = None) -> list[str]:
    """The last ``width`` values as an area of ``height`` lines, newest at the right; the scale as in ``spark``."""
    if height <= 1:
        return [spark(values, width, top=top)]
    shown = values[-width:]
    peak = top if top is not None else max(shown, default=0.0)
    levels = [0 if peak <= 0 or v <= 0 else max(1, min(8 * height, round(v / peak * 8 * height))) for v in shown]
    lines = []
    for row in range(height - 1, -1, -1):
        floor = "▁" if row == 0 else " "
        cells = [_BLOCKS[min(8, level - 8 * row)] if level > 8 * row else floor for level in levels]
        lines.append("".join(cells).rjust(width))
    return lines

"""Where text goes and how it looks: results to stdout, messages to stderr, colour only on a terminal.

``NO_COLOR`` (https://no-color.org) and ``TERM=dumb`` switch colour off; nothing here imports rich, so a command that
prints a short table stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def colored(stream: TextIO) -> bool:
    """Whether colour may be written to ``stream``."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def style(text: str, *names: str, stream: TextIO | None = None) -> str:
    """``text`` in the named styles where ``stream`` (stdout unless told) takes colour, else unchanged."""
    if not names or not colored(stream or sys.stdout):
        return text
    return f"\033[{';'.join(_CODES[name] for name in names)}m{text}\033[0m"


def result(text: str) -> None:
    """One line (or block) of the command's result, on stdout."""
    print(text, flush=True)


def say(text: str = "") -> None:
    """One message to the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def emit_json(value: object) -> None:
    """The result as JSON on stdout: indented on a terminal and in a pipe alike, keys in their order."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def table(rows: Iterable[Sequence[str]], header: Sequence[str]) -> list[str]:
    """Lines of left-aligned columns, two spaces apart; the last column is not padded."""
    body = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in body) for i in range(len(header))]
    lines = []
    for row in body:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def duration(seconds: float) -> str:
    """A span in the unit that reads best: ``850 ms``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, small_size, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            small = whole % size // small_size
            return f"{whole // size} {unit} {small} {small_unit}" if small else f"{whole // size} {unit}"
    return f"{whole} s"

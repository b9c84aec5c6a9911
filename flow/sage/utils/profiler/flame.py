"""Sampled stacks, in the two formats that flame graph tools read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Flame", "StackFrame"]


class StackFrame(NamedTuple):
    """A function, or (with an empty file) an operator or a task."""

    name: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f" ({os.path.basename(self.file)}:{self.line})" if self.file else ""  # noqa: PTH119 - names like <stdin>
        return (self.name + where).replace(";", ",").replace("\n", " ")


class Flame:
    """How often each stack was seen, the outermost frame first; `interval` is the time that a sample stands for.

    >>> flame = Flame(0.01)
    >>> flame.add((StackFrame("map"), StackFrame("clean", "etl.py", 3)))
    >>> flame.add((StackFrame("map"), StackFrame("clean", "etl.py", 3)))
    >>> print(flame.collapsed())
    map;clean (etl.py:3) 2
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.stacks: dict[tuple[StackFrame, ...], int] = {}

    def __len__(self) -> int:
        return sum(self.stacks.values())

    def add(self, stack: tuple[StackFrame, ...]) -> None:
        """Count one sample."""
        self.stacks[stack] = self.stacks.get(stack, 0) + 1

    def collapsed(self) -> str:
        """A line a stack, as flamegraph.pl and its kin read them: `outer;inner count`."""
        return "\n".join(self._lines())

    def speedscope(self, name: str = "pipeline") -> dict[str, object]:
        """A document of https://www.speedscope.app/file-format-schema.json; weights in seconds."""
        numbers: dict[StackFrame, int] = {}
        samples = [[numbers.setdefault(frame, len(numbers)) for frame in stack] for stack in sorted(self.stacks)]
        weights = [self.stacks[stack] * self.interval for stack in sorted(self.stacks)]
        frames = [
            {"name": frame.name, **({"file": frame.file, "line": frame.line} if frame.file else {})}
            for frame in numbers
        ]
        profile = {
            "type": "sampled",
            "name": name,
            "unit": "seconds",
            "startValue": 0,
            "endValue": sum(weights),
            "samples": samples,
            "weights": weights,
        }
        return {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": name,
            "exporter": "sage.utils.profiler",
            "shared": {"frames": frames},
            "profiles": [profile],
        }

    def write_collapsed(self, path: str | os.PathLike[str]) -> None:
        """Write `collapsed()` to a file."""
        Path(path).write_text(self.collapsed() + "\n", encoding="utf-8")

    def write_speedscope(self, path: str | os.PathLike[str], name: str = "pipeline") -> None:
        """Write `speedscope()` to a file."""
        Path(path).write_text(json.dumps(self.speedscope(name)), encoding="utf-8")

    def _lines(self) -> Iterator[str]:
        for stack, count in sorted(self.stacks.items()):
            yield f"{';'.join(map(str, stack))} {count}"

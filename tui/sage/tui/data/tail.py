"""Following a log file: the last lines at first, then what is added, through rotation and truncation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sage.tui.format import clean

__all__ = ["LogTail", "Tail", "level_of", "log_files"]

FIRST_BYTES = 128 << 10
STEP_BYTES = 512 << 10
LONGEST_LINE = 64 << 10
_LEVELS = (
    ("error", ("CRITICAL", "FATAL", "ERROR", "Traceback", '"level": "error"', '"level":"error"')),
    ("warning", ("WARNING", "WARN", '"level": "warning"', '"level":"warning"')),
    ("debug", ("DEBUG",)),
)


@dataclass(frozen=True, slots=True)
class Tail:
    """What a poll found. ``fresh`` means that ``lines`` replace all that was shown before."""

    lines: tuple[str, ...] = ()
    fresh: bool = False
    problem: str = ""


class LogTail:
    """Follows one file. A line is given out once it is complete; control characters are taken out of it."""

    def __init__(self, path: Path, first_bytes: int = FIRST_BYTES) -> None:
        self.path = path
        self._first = first_bytes
        self._inode: int | None = None
        self._offset = 0
        self._rest = b""

    def poll(self) -> Tail:
        """Lines added since the last call. Never raises; a missing file is a ``problem``, not an error."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                fresh = stat.st_ino != self._inode or stat.st_size < self._offset
                if fresh:
                    self._start(stat.st_ino, stat.st_size)
                elif stat.st_size == self._offset:
                    return Tail()
                file.seek(self._offset)
                data = file.read(STEP_BYTES)
        except FileNotFoundError:
            self._inode = None
            return Tail(problem="no log yet")
        except OSError as error:
            return Tail(problem=error.strerror or "cannot be read")
        middle = fresh and self._offset > 0
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            whole, self._rest = [*whole, self._rest], b""
        if middle:
            whole = whole[1:]  # the first one is a part of a line
        return Tail(tuple(clean(line.decode("utf-8", "replace")) for line in whole), fresh=fresh)

    def _start(self, inode: int, size: int) -> None:
        self._inode, self._offset, self._rest = inode, max(0, size - self._first), b""


def level_of(line: str) -> str:
    """``error``, ``warning``, ``debug`` or ``info``, by the words that loggers use."""
    head = line[:160]
    return next((level for level, words in _LEVELS if any(word in head for word in words)), "info")


def log_files(folder: Path) -> dict[str, Path]:
    """The logs in a folder, by name without ``.log``, sorted; rotated ones are left out."""
    try:
        return {path.stem: path for path in sorted(folder.glob("*.log")) if path.is_file()}
    except OSError:
        return {}

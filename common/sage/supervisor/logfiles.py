"""The log file of a daemon: the daemon writes to it directly, so its lines outlive the supervisor.

The file is opened with O_APPEND and handed over as stdout and stderr. At a start by a person it is renamed (nobody
writes to it then). While it is in use it is rotated by copying and truncating, because the daemon holds the open file
and knows nothing of rotation; with O_APPEND its next line goes to the new end. The price, compared with rename and
re-open: a line written between the end of the copy and the truncation (microseconds) is lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["LogFile"]


class LogFile:
    """`<name>.log` with its older parts `<name>.log.1` (the latest) and so on."""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._backups = backups

    def open(self) -> int:
        """A descriptor to write to the end of the file. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)  # somebody may have tidied up
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def turn_over(self) -> None:
        """Begin a new file before a fresh start; an empty one stays. A troubled disk is no reason not to start."""
        if self.size() == 0:
            return
        try:
            self._shift()
            self.path.rename(self._older(1))
        except OSError:
            return

    def rotate_if_big(self) -> bool:
        """Copy and truncate a file that has grown past its limit; True when that happened. On a full disk the old
        lines are given up, so that new ones find room."""
        if self.size() < self._max_bytes:
            return False
        try:
            self._shift()
            shutil.copyfile(self.path, self._older(1))
        except OSError:
            self._older(1).unlink(missing_ok=True)
        try:
            os.truncate(self.path, 0)
        except OSError:
            return False
        return True

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _shift(self) -> None:
        for number in range(self._backups, 1, -1):
            older = self._older(number - 1)
            if older.exists():
                older.replace(self._older(number))

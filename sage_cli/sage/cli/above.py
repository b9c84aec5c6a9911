"""A stdout whose lines appear above a live display, unwrapped: long lines stay one line for whoever copies them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


class LinesAbove:
    """Stands in for ``sys.stdout`` while ``console`` shows something live; everything else is the stream's own."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console = console
        self.stream = stream
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Print the lines that are complete now; the rest waits for its end."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._print(line)
        return len(text)

    def finish(self) -> None:
        """Print what has no end of line."""
        with self._lock:
            if self._rest:
                self._print(self._rest)
                self._rest = ""

    def flush(self) -> None:
        """Nothing: a line is shown when it is complete."""

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def _print(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(line), soft_wrap=True)

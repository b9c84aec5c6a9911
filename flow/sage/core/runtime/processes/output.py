"""What functions in a worker write to `sys.stdout` and `sys.stderr`, on its way to the master's."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

__all__ = ["ForwardedStream"]

_MOST = 8192  # characters that wait


class ForwardedStream(io.TextIOBase):
    """Text goes to `forward` in whole lines, as soon as there is much of it, and all of it when flushed.

    Thread-safe; what one `write` is given stays together.
    """

    def __init__(self, forward: Callable[[str], None]) -> None:
        self._forward = forward
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._size = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See TextIOBase."""
        return "utf-8"

    def writable(self) -> bool:
        """See TextIOBase."""
        return True

    def write(self, text: str) -> int:
        """See TextIOBase."""
        with self._lock:
            self._waiting.append(text)
            self._size += len(text)
            if self._size >= _MOST:
                self._send(whole_lines=True)
        return len(text)

    def flush(self) -> None:
        """See TextIOBase."""
        with self._lock:
            self._send(whole_lines=False)

    def flush_lines(self) -> None:
        """Send the lines that are whole; from time to time."""
        with self._lock:
            self._send(whole_lines=True)

    def _send(self, *, whole_lines: bool) -> None:
        if not self._waiting:
            return
        text = "".join(self._waiting)
        end = text.rfind("\n") + 1 if whole_lines and len(text) < 16 * _MOST else len(text)
        if end:
            self._forward(text[:end])
            text = text[end:]
        self._waiting = [text] if text else []
        self._size = len(text)

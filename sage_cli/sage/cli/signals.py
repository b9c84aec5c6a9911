"""SIGTERM ends a command like Ctrl-C: what it started is stopped, what it read is finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def term_like_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt. Main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

"""One ``sage llm serve`` at a time for a home: a second one waits, and then finds the stack running."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sage.cli.output import say
from sage.common.errors import StateError
from sage.common.home import SageHome


@contextmanager
def our_turn(home: SageHome) -> Iterator[None]:
    """Hold ``.sage/serve.lock``; the kernel lets go of it however this process ends. Raises StateError."""
    path = home.root / "serve.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"Cannot open {path}", cause=error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another `sage llm serve` is at work; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

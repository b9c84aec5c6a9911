"""Calls handed to an event loop by a thread that must not stop for it."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import Callable


class Doorbell:
    """`post` from any thread; the call runs on the loop, in order.

    `loop.call_soon_threadsafe` writes to a socket with the interpreter's lock let go: the loop takes the lock, and the
    caller waits for it after every token. This one writes with the lock held; the loop runs when the caller next waits
    for something of its own, such as a step of the model. Where a loop watches no pipes, it is `call_soon_threadsafe`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._rung = False
        self._pipe: tuple[int, int] | None = None
        if os.name != "posix":
            return
        ends = os.pipe()
        for end in ends:
            os.set_blocking(end, False)
        try:
            loop.add_reader(ends[0], self._answer)
        except NotImplementedError:
            _close(ends)
            return
        self._write = ctypes.PyDLL(None).write
        self._pipe = ends

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop run `call` soon; nothing happens once the loop or the bell is closed."""
        if self._loop.is_closed():
            return
        if self._pipe is None:
            self._loop.call_soon_threadsafe(call)
            return
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            self._write(self._pipe[1], b"\0", ctypes.c_size_t(1))

    def close(self) -> None:
        """Give back the pipe; on the loop, when nobody posts any more. What was posted still runs."""
        if self._pipe is None:
            return
        self._loop.remove_reader(self._pipe[0])
        _close(self._pipe)
        self._pipe = None
        self._hand_over()

    def _answer(self) -> None:
        assert self._pipe is not None
        os.read(self._pipe[0], 64)
        self._rung = False
        self._hand_over()

    def _hand_over(self) -> None:
        while self._calls:
            self._loop.call_soon(self._calls.popleft())


def _close(ends: tuple[int, int]) -> None:
    for end in ends:
        os.close(end)

"""Writes an answer's body without a task for each piece.

ASGI's `send` is a coroutine, but one that waits only where the client reads more slowly than it is written to: as a
rule it runs through at once. So it is started where the data comes, and goes on in a task only if it has to wait; what
comes meanwhile is put together into one write. Where the server has a shorter way than `send`, that is taken first.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from time import monotonic
from typing import Any

from starlette.types import Send

from sagellm_core.server.direct import Direct


class BodyWriter:
    """Writes the body of one answer. `waiting_since`: since when the client has left unread what was sent."""

    __slots__ = ("_direct", "_held", "_send", "_waiting", "waiting_since")

    def __init__(self, send: Send, direct: Direct | None = None) -> None:
        self._send = send
        self._direct = direct
        self._held: list[bytes] = []
        self._waiting: asyncio.Task[None] | None = None
        self.waiting_since: float | None = None

    def write(self, data: bytes) -> None:
        """Send some bytes now, or behind what waits already. Raises what `send` raises, where that happens at once."""
        if self._waiting is not None:
            self._held.append(data)
            return
        if self._direct is not None and self._direct.take(data):
            return
        sending = self._send({"type": "http.response.body", "body": data, "more_body": True})
        assert isinstance(sending, Coroutine)
        try:
            future = sending.send(None)
        except StopIteration:
            return
        self.waiting_since = monotonic()
        self._waiting = asyncio.get_running_loop().create_task(self._go_on(sending, future))

    async def finish(self, data: bytes) -> None:
        """Send the last piece, which may be empty, and close the body; returns when everything is sent."""
        if self._waiting is not None and data:
            self._held.append(data)
            data = b""
        while self._waiting is not None:
            await asyncio.shield(self._waiting)
        self.waiting_since = monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        self.waiting_since = None

    def abandon(self) -> None:
        """Send nothing more."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _go_on(self, sending: Coroutine[Any, Any, None], future: Any) -> None:
        try:
            await _rest(sending, future)
            while self._held:
                data = b"".join(self._held)
                self._held.clear()
                self.waiting_since = monotonic()
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._waiting, self.waiting_since = None, None


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], future: Any) -> Generator[Any, Any, None]:
    """The rest of a coroutine that was started outside a task and waits for `future`."""
    try:
        while True:
            yield future
            future = coroutine.send(None)
    except StopIteration:
        return
    finally:
        coroutine.close()

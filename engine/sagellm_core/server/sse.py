"""Answers as server-sent events, ended by the client's leaving as well as by their own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sagellm_core.errors import EngineError
from sagellm_core.server.chunks import Chunks, Numbered

SLOW_SECONDS = 60.0
"""How long a client may leave what was sent unread; then its requests are over."""

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Batches = AsyncGenerator[Sequence[Numbered], None]


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A streamed answer: one write for all that a step of the engine brought.

    A failure on the way is an `{"error": …}` event, and then no `[DONE]`.
    """

    media_type = "text/event-stream"

    def __init__(
        self, batches: Batches, first: Sequence[Numbered], chunks: Chunks, slow_seconds: float = SLOW_SECONDS
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._batches = batches
        self._first = first
        self._chunks = chunks
        self._slow_seconds = slow_seconds
        self._sending_since: float | None = None

    @classmethod
    async def open(cls, batches: Batches, chunks: Chunks, slow_seconds: float = SLOW_SECONDS) -> EventStream:
        """Wait for the first events, so that a refusal is still an HTTP status. Raises EngineError."""
        return cls(batches, await anext(batches), chunks, slow_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, until the client is gone, or until it reads no more; then the requests are over too."""
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(disconnected(receive))
        try:
            done: set[asyncio.Task[None]] = set()
            while not done and not self._unread:
                done, _ = await asyncio.wait(
                    (sending, gone), timeout=self._slow_seconds / 4, return_when=asyncio.FIRST_COMPLETED
                )
            if sending.done():
                sending.result()
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._batches.aclose()

    @property
    def _unread(self) -> bool:
        """Whether the client has left what was sent unread for too long."""
        since = self._sending_since
        return since is not None and monotonic() - since > self._slow_seconds

    async def _send(self, send: Send) -> None:
        chunks = self._chunks
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._write(send, chunks.of(self._first))
            async for batch in self._batches:
                await self._write(send, chunks.of(batch))
                if chunks.failed:
                    break
        except EngineError as error:
            await self._write(send, chunks.failure(error))
        if not chunks.failed:
            await self._write(send, chunks.last())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, data: bytes) -> None:
        if not data:
            return
        self._sending_since = monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._sending_since = None

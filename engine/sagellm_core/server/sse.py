"""Answers as server-sent events, ended by the client's leaving as well as by their own end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic

from starlette.types import Receive, Scope, Send

from sagellm_core.request_state import Delta, Hear, News
from sagellm_core.server.chunks import Chunks, Numbered
from sagellm_core.server.direct import Direct, direct_of
from sagellm_core.server.writer import BodyWriter
from sagellm_protocol.messages import Request

SLOW_SECONDS = 60.0
"""How long a client may leave what was sent unread; then its requests are over."""

_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]

Listen = Callable[[Request, Hear], Awaitable[Callable[[], None]]]


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A streamed answer to one or more prompts, as an ASGI application: one write for all that a step brought.

    A failure on the way is an `{"error": …}` event, and then no `[DONE]`. Nothing runs between the steps: the engine
    tells what is new, and that is written there and then. With many answers, what a token costs is mostly the memory
    that it touches and that the model's step has displaced, so what it needs lies close together.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_is_live",
        "_leaves",
        "_left",
        "_loop",
        "_over",
        "_slow_seconds",
        "_watching",
        "_writer",
    )

    def __init__(self, chunks: Chunks, prompts: int, slow_seconds: float = SLOW_SECONDS) -> None:
        self._chunks = chunks
        self._left = prompts
        self._slow_seconds = slow_seconds
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._held: list[Numbered] = []
        self._is_live = False
        self._watching: asyncio.TimerHandle | None = None
        self._writer: BodyWriter | None = None
        self._leaves: list[Callable[[], None]] = []

    @classmethod
    async def open(
        cls, listen: Listen, requests: Sequence[Request], chunks: Chunks, slow_seconds: float = SLOW_SECONDS
    ) -> EventStream:
        """Hand the requests in, so that a refusal is still an HTTP status. Raises EngineError; then none goes on."""
        stream = cls(chunks, len(requests), slow_seconds)
        try:
            for number, request in enumerate(requests):
                hear = stream._hear if len(requests) == 1 else partial(stream._hear_one_of, number)
                stream._leaves.append(await listen(request, hear))
        except BaseException:
            stream._leave()
            raise
        return stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, until the client is gone, or until it reads no more; then the requests are over too."""
        gone = asyncio.create_task(disconnected(receive))
        try:
            async with asyncio.timeout(None) as patience:

                def end(_: object) -> None:
                    patience.reschedule(0)

                gone.add_done_callback(end)
                self._watch(patience)
                await self._answer(send, direct_of(scope))
        except TimeoutError:
            if not patience.expired():
                raise
        finally:
            self._leave()
            gone.remove_done_callback(end)
            gone.cancel()

    async def _answer(self, send: Send, direct: Direct | None) -> None:
        """Begin the answer, wait until the engine has told everything, close it."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        self._writer = writer = BodyWriter(send, direct)
        self._is_live = not self._over.done()
        self._flush()
        await self._over
        await writer.finish(b"" if self._chunks.failed else self._chunks.last())

    def _watch(self, patience: asyncio.Timeout) -> None:
        """End the answer when the client has left what was sent unread for too long; looked at now and then."""
        since = None if self._writer is None else self._writer.waiting_since
        if since is not None and monotonic() - since > self._slow_seconds:
            patience.reschedule(0)
        else:
            self._watching = self._loop.call_later(self._slow_seconds / 4, self._watch, patience)

    def _hear(self, news: list[News]) -> None:
        """News of the only prompt."""
        if self._is_live:
            self._show(((0, news),))
        else:
            self._held.append((0, news))

    def _hear_one_of(self, number: int, news: list[News]) -> None:
        """News of one of several prompts: the others hear of the same step before what is held is written."""
        if self._is_live and not self._held:
            self._loop.call_soon(self._flush)
        self._held.append((number, news))

    def _flush(self) -> None:
        """Write what is held, once the answer has begun."""
        if self._is_live and self._held:
            batch, self._held = self._held, []
            self._show(batch)

    def _show(self, batch: Sequence[Numbered]) -> None:
        assert self._writer is not None
        try:
            data = self._chunks.of(batch)
            if data:
                self._writer.write(data)
        except Exception as error:  # the answer breaks off with it, and the engine goes on undisturbed
            self._end(error)
            return
        for _, news in batch:
            last = news[-1]
            if not isinstance(last, Delta) and (last.event == "end" or self._chunks.failed):
                self._left -= 1
                if self._left == 0 or self._chunks.failed:
                    self._end()
                    return

    def _end(self, error: Exception | None = None) -> None:
        """Nothing more is shown."""
        self._is_live = False
        if self._over.done():
            return
        if error is not None:
            self._over.set_exception(error)
        else:
            self._over.set_result(None)

    def _leave(self) -> None:
        """Cancel what has not ended, and write no more."""
        self._end()
        if self._watching is not None:
            self._watching.cancel()
        if self._writer is not None:
            self._writer.abandon()
        for leave in self._leaves:
            leave()

"""Answers as server-sent events, ended by the client's leaving as well as by their own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sagellm_core.errors import EngineError
from sagellm_core.server.shapes import Answer, engine_error
from sagellm_protocol.messages import StreamEvent

encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Events = AsyncGenerator[tuple[int, StreamEvent], None]


def frame(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + encode(body) + b"\n\n"


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A streamed answer. A failure on the way is an `{"error": …}` event, and then no `[DONE]`."""

    media_type = "text/event-stream"

    def __init__(self, events: Events, first: tuple[int, StreamEvent], answer: Answer, usage: bool, n: int) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._first = first
        self._answer = answer
        self._usage = usage
        self._n = n
        self._opened: set[int] = set()
        self._prompt_tokens = 0
        self._completion_tokens = 0

    @classmethod
    async def open(cls, events: Events, answer: Answer, usage: bool, n: int) -> EventStream:
        """Wait for the first event, so that a refusal is still an HTTP status. Raises EngineError."""
        return cls(events, await anext(events), answer, usage, n)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the client is gone, whichever is first; then the requests are over too."""
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for data in self._frames():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frames(self) -> AsyncIterator[bytes]:
        for data in self._frames_of(*self._first):
            yield data
        try:
            async for index, event in self._events:
                for data in self._frames_of(index, event):
                    yield data
                if event.error is not None:
                    return
        except EngineError as error:
            yield frame(engine_error(error)[1])
            return
        if self._usage:
            yield frame(self._answer.usage_chunk(self._prompt_tokens, self._completion_tokens))
        yield _DONE

    def _frames_of(self, index: int, event: StreamEvent) -> list[bytes]:
        if event.event == "start":
            self._prompt_tokens += event.prompt_tokens if index % self._n == 0 else 0
            return []
        if event.error is not None:
            return [frame(engine_error(EngineError.from_protocol(event.error))[1])]
        frames = self._opening(index)
        if event.event == "end":
            frames.append(frame(self._answer.closing(index, event.finish_reason or "stop")))
        else:
            self._completion_tokens += len(event.chunk_tokens)
            if event.chunk or event.logprobs:
                frames.append(frame(self._answer.chunk(index, event)))
        return frames

    def _opening(self, index: int) -> list[bytes]:
        """The first chunk of a choice, with its first token: until then a gateway may still try another engine."""
        opening = None if index in self._opened else self._answer.opening(index)
        self._opened.add(index)
        return [] if opening is None else [frame(opening)]

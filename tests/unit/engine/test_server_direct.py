"""The short way of a streamed answer to its connection: the same bytes, and never past a slow reader (SPEC E8, G6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from sagellm_core.request_state import Delta, Hear
from sagellm_core.server.chunks import Chunks
from sagellm_core.server.direct import Direct, direct_of
from sagellm_core.server.run import server_config
from sagellm_core.server.shapes import Answer
from sagellm_core.server.sse import EventStream
from sagellm_protocol import Request, StreamEvent

pytestmark = pytest.mark.spec("E8", "G6")

END = StreamEvent(event="end", request_id="r", finish_reason="stop")
LARGE = 1 << 16
"""More than a transport holds before it asks for a pause."""

App = Callable[[Scope, Receive, Send], Any]


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """The port of an application under the engine's own uvicorn settings."""
    config = server_config(Starlette(), 1)
    config.app, config.lifespan, config.port = app, "off", 0
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(20):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def asked(port: int, *, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return reader, writer


async def pieces_of(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body, to its end."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"


async def body_of(reader: asyncio.StreamReader) -> bytes:
    """A chunked body behind its head."""
    await reader.readuntil(b"\r\n\r\n")
    return b"".join([piece async for piece in pieces_of(reader)])


async def test_pieces_that_go_either_way_make_one_body_and_the_connection_lives_on() -> None:
    found: list[tuple[bool, ...]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        direct = direct_of(scope)
        assert direct is not None
        before = direct.take(b"too early")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        first = direct.take(b"one ")
        await send({"type": "http.response.body", "body": b"two ", "more_body": True})
        third = direct.take(b"three")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        found.append((before, first, third, direct.take(b"too late")))

    async with serving(app) as port:
        reader, writer = await asked(port)
        assert await body_of(reader) == b"one two three"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await body_of(reader) == b"one two three"
        writer.close()
    assert found == [(False, True, True, False)] * 2


async def test_a_body_of_a_given_length_and_a_client_that_left_take_the_long_way() -> None:
    taken: dict[str, bool] = {}
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        direct = direct_of(scope)
        assert direct is not None
        if scope["path"] == "/":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            taken["there"] = direct.take(b"x")
            while (await receive())["type"] != "http.disconnect":
                pass
            taken["gone"] = direct.take(b"x")
            left.set()
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        taken["sized"] = direct.take(b"ok")
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /sized HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\nok")
        writer.close()
        reader, writer = await asked(port)
        await reader.readuntil(b"x")
        writer.close()
        async with asyncio.timeout(20):
            await left.wait()
    assert taken == {"sized": False, "there": True, "gone": False}


async def test_a_stream_takes_the_short_way_until_its_reader_is_slow_and_gives_every_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ears: list[Hear] = []
    pieces: list[bool] = []
    over = asyncio.Event()

    async def listen(_: Request, hear: Hear) -> Callable[[], None]:
        ears.append(hear)
        return lambda: None

    take = Direct.take

    def seen(direct: Direct, data: bytes) -> bool:
        pieces.append(take(direct, data))
        return pieces[-1]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        chunks = Chunks(Answer("text_completion", "m"))
        stream = await EventStream.open(listen, [Request(request_id="r", prompt="x")], chunks)
        await stream(scope, receive, send)
        over.set()

    monkeypatch.setattr(Direct, "take", seen)
    async with serving(app) as port, asyncio.timeout(30):
        reader, writer = await asked(port, limit=1 << 10)
        while not ears:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await reader.readuntil(b"\r\n\r\n")
        ears[0]([Delta(0, "a", [1])])
        assert pieces == [True]
        told = 1
        while pieces[-1]:
            ears[0]([Delta(0, "b" * LARGE, [1])])
            told += 1
            assert told < 1000, "nobody reads, and everything is written"
        ears[0]([Delta(0, "c", [1]), END])
        assert len(pieces) == told, "what comes while the reader is slow waits together"
        rest = b"".join([piece async for piece in pieces_of(reader)])
        await over.wait()
        writer.close()
    assert rest.count(b"b" * LARGE) == told - 1
    assert rest.index(b'"c"') > rest.rindex(b"bb")
    assert rest.endswith(b"data: [DONE]\n\n")

"""One look at /health: what counts as an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.supervisor.policy import Probe
from sage.supervisor.probe import Health, look, parse


@pytest.mark.spec("R1")
@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", Health(Probe.OK)),
        (
            b'HTTP/1.1 503 x\r\n\r\n{"status":"starting","reason":"loading weights"}',
            Health(Probe.NOT_READY, "loading weights"),
        ),
        (b'HTTP/1.1 503 x\r\n\r\n{"status":"unhealthy","reason":"loop died"}', Health(Probe.SICK, "loop died")),
        (b'HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n{"status":"unhealthy"}\r\n0\r\n\r\n',
         Health(Probe.SICK, "/health answers 503")),
        (b"HTTP/1.1 500 oops\r\n\r\nnot json", Health(Probe.SICK, "/health answers 500")),
        (b"HTTP/1.1 404 none\r\n\r\n", Health(Probe.NOT_READY, "/health answers 404")),
        (b"SSH-2.0-OpenSSH", Health(Probe.SILENT, "the answer is not HTTP")),
        (b"", Health(Probe.SILENT, "the answer is not HTTP")),
    ],
)  # fmt: skip
def test_answers(answer: bytes, health: Health) -> None:
    assert parse(answer) == health


@given(st.binary())
def test_nonsense_never_raises_and_a_503_is_never_ready(answer: bytes) -> None:
    assert isinstance(parse(answer), Health)
    assert parse(b"HTTP/1.1 503 x\r\n\r\n" + answer).probe is not Probe.OK


@asynccontextmanager
async def server(behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        behave(reader, writer)

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


def reply(writer: asyncio.StreamWriter, data: bytes, *, close: bool) -> None:
    writer.write(data)
    if close:
        writer.close()


async def test_an_answer_is_taken_without_waiting_for_the_end_of_the_connection() -> None:
    writers: list[asyncio.StreamWriter] = []

    def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        reply(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", close=False)

    async with server(behave) as port:
        assert await look("127.0.0.1", port, "/health", 5) == Health(Probe.OK)
    for writer in writers:
        writer.close()


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with server(lambda r, w: reply(w, b"HTTP/1.0 200 OK\r\n\r\nok", close=True)) as port:
        assert await look("127.0.0.1", port, "/health", 5) == Health(Probe.OK)


@pytest.mark.spec("R1")
async def test_silence_is_cut_short() -> None:
    kept: list[asyncio.StreamWriter] = []
    async with server(lambda r, w: kept.append(w)) as port:
        health = await look("127.0.0.1", port, "/health", 0.05)
    assert health == Health(Probe.SILENT, "no answer from /health within 0.05 s")
    kept[0].close()


async def test_nobody_there() -> None:
    async with server(lambda r, w: None) as port:
        pass
    health = await look("127.0.0.1", port, "/health", 1)
    assert health.probe is Probe.SILENT
    assert "no answer from /health" in health.reason

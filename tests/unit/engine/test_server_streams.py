"""Streamed answers: when the first chunk leaves, and how a stream ends whatever happens in it (SPEC E8, G6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from sagellm_core import LLMEngineConfig
from sagellm_core.server.service import EngineService
from sagellm_core.server.shapes import Answer
from sagellm_core.server.sse import EventStream
from sagellm_protocol import Request, StreamEvent, TokenLogprob

pytestmark = pytest.mark.spec("E8", "G6")


class Client:
    """The client's side of an answer: what it was sent, and when it leaves."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def chunks(self) -> list[str]:
        text = b"".join(message.get("body", b"") for message in self.sent).decode()
        return [block.removeprefix("data: ") for block in text.split("\n\n") if block]


class Engine:
    """Events of one chat answer; the first token comes when `token` is set."""

    def __init__(self) -> None:
        self.token = asyncio.Event()
        self.over = False

    async def events(self) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        try:
            yield 0, StreamEvent(event="start", request_id="r", prompt_tokens=3)
            await self.token.wait()
            yield 0, StreamEvent(event="delta", request_id="r", chunk="Hi", chunk_tokens=[5])
            yield 0, StreamEvent(event="end", request_id="r", finish_reason="stop")
        finally:
            self.over = True


def test_offsets_of_log_probabilities_go_on_from_piece_to_piece() -> None:
    def token(text: str) -> TokenLogprob:
        return TokenLogprob(token_id=1, token=text, logprob=-0.5)

    def offsets(*texts: str, index: int = 0) -> list[int]:
        event = StreamEvent(event="delta", request_id="r", logprobs=[token(text) for text in texts])
        found: list[int] = answer.chunk(index, event)["choices"][0]["logprobs"]["text_offset"]
        return found

    answer = Answer("text_completion", "m")
    assert [offsets("SAGE"), offsets(" is", " a"), offsets("x", index=1), offsets("!")] == [[0], [4, 7], [0], [9]]


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_of_an_answer_leaves_before_its_first_token() -> None:
    """A gateway may send a request that still waits to another engine only while its answer has not begun."""
    engine, client = Engine(), Client()
    stream = await EventStream.open(engine.events(), Answer("chat.completion", "m"), usage=True, n=1)
    answering = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    await turns()
    assert client.chunks == []
    engine.token.set()
    await answering
    *chunks, last = client.chunks
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Hi"}, {}]
    assert json.loads(chunks[-1])["usage"]["total_tokens"] == 4
    assert last == "[DONE]"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_ends_the_events(begun: bool) -> None:
    engine, client = Engine(), Client()
    stream = await EventStream.open(engine.events(), Answer("chat.completion", "m"), usage=False, n=1)
    if not begun:
        client.gone.set()
    answering = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    await turns()
    client.gone.set()
    await answering
    assert engine.over


async def test_a_fault_in_one_of_several_choices_ends_the_stream(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Request) -> AsyncGenerator[StreamEvent, None]:
        yield StreamEvent(event="start", request_id="r")
        raise RuntimeError("a fault of the engine's own")

    service = EngineService(LLMEngineConfig(model_path=str(tiny_llama)))
    service.start()
    try:
        await asyncio.sleep(0)
        while (await service.health())[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        monkeypatch.setattr(service.engine, "stream", broken)
        with pytest.raises(RuntimeError, match="own"):
            async with asyncio.timeout(10):
                _ = [each async for each in service.merged([Request(prompt="a"), Request(prompt="b")])]
    finally:
        await service.stop()

"""Streamed answers: when the first chunk leaves, and how a stream ends whatever happens in it (SPEC E8, G6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from sagellm_core import LLMEngineConfig
from sagellm_core.request_state import Delta, News
from sagellm_core.server.chat_body import ToolUse
from sagellm_core.server.chunks import Chunks, Numbered
from sagellm_core.server.service import EngineService
from sagellm_core.server.shapes import Answer, Echo
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

    async def events(self) -> AsyncGenerator[list[Numbered], None]:
        try:
            yield [(0, [StreamEvent(event="start", request_id="r", prompt_tokens=3)])]
            await self.token.wait()
            yield [(0, [Delta(0, "Hi", [5])])]
            yield [(0, [StreamEvent(event="end", request_id="r", finish_reason="stop")])]
        finally:
            self.over = True


def chunks_of(answer: Answer, *news: News) -> list[dict[str, Any]]:
    """The chunks that news of one prompt become."""
    text = Chunks(answer).of([(0, news)]).decode()
    return [json.loads(block.removeprefix("data: ")) for block in text.split("\n\n") if block]


def delta(chunk: str, index: int = 0, **more: Any) -> Delta:
    return Delta(index, chunk, [1], **more)


def test_offsets_of_log_probabilities_go_on_from_piece_to_piece() -> None:
    def token(text: str) -> TokenLogprob:
        return TokenLogprob(token_id=1, token=text, logprob=-0.5)

    pieces = [["SAGE"], [" is", " a"], ["!"]]
    events = [delta("", logprobs=[token(text) for text in texts]) for texts in pieces]
    events.insert(2, delta("", index=1, logprobs=[token("x")]))
    chunks = [chunk["choices"][0] for chunk in chunks_of(Answer("text_completion", "m", choices=2), *events)]
    found = [(chunk["index"], chunk["logprobs"]["text_offset"]) for chunk in chunks]
    assert found == [(0, [0]), (0, [4, 7]), (1, [0]), (0, [9])]


def test_calls_stream_with_their_name_first_and_their_arguments_as_they_come() -> None:
    tools = ToolUse([{"type": "function", "function": {"name": "f"}}], required=False, single=False)
    texts = ["Wait", ' <tool_call>{"name": "f', '", "arguments": {"a":', " 1}}</tool_call>"]
    end = StreamEvent(event="end", request_id="r", finish_reason="stop")
    chunks = chunks_of(Answer("chat.completion", "m", tools=tools), *(delta(text) for text in texts), end)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    call_id = deltas[2]["tool_calls"][0].pop("id")
    assert call_id.startswith("call_")
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Wait"},
        {"tool_calls": [{"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_an_echo_comes_first_with_the_log_probabilities_of_the_prompt() -> None:
    answer = Answer("text_completion", "m", echoes=[Echo("one two", "one")])
    prompt = [TokenLogprob(token_id=2, token=" two", logprob=-1.0)]
    own = [TokenLogprob(token_id=3, token=" three", logprob=-2.0)]
    first, second = chunks_of(answer, delta(" three", prompt_logprobs=prompt, logprobs=own))
    assert first["choices"][0]["text"] == "one two"
    assert first["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0]
    assert first["choices"][0]["logprobs"]["text_offset"] == [0, 3]
    assert second["choices"][0]["logprobs"]["text_offset"] == [7]


def test_usage_is_null_until_the_end_or_in_every_chunk() -> None:
    start = StreamEvent(event="start", request_id="r", prompt_tokens=3)
    plain = chunks_of(Answer("text_completion", "m", include_usage=True), start, delta("a"))
    assert plain[0]["usage"] is None
    counted = chunks_of(Answer("text_completion", "m", usage_in_chunks=True), start, delta("a"), delta("b"))
    assert [chunk["usage"]["total_tokens"] for chunk in counted] == [4, 5]


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_of_an_answer_leaves_before_its_first_token() -> None:
    """A gateway may send a request that still waits to another engine only while its answer has not begun."""
    engine, client = Engine(), Client()
    stream = await EventStream.open(engine.events(), Chunks(Answer("chat.completion", "m", include_usage=True)))
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
    stream = await EventStream.open(engine.events(), Chunks(Answer("chat.completion", "m")))
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
    async def broken(_: Request) -> AsyncGenerator[list[News], None]:
        yield [StreamEvent(event="start", request_id="r")]
        raise RuntimeError("a fault of the engine's own")

    service = EngineService(LLMEngineConfig(model_path=str(tiny_llama)))
    service.start()
    try:
        await asyncio.sleep(0)
        while (await service.health())[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        monkeypatch.setattr(service.engine, "steps", broken)
        with pytest.raises(RuntimeError, match="own"):
            async with asyncio.timeout(10):
                _ = [each async for each in service.batches([Request(prompt="a"), Request(prompt="b")])]
    finally:
        await service.stop()


async def test_a_client_that_reads_no_more_is_given_up() -> None:
    engine, client = Engine(), Client()

    async def never(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    stream = await EventStream.open(engine.events(), Chunks(Answer("chat.completion", "m")), slow_seconds=0.02)
    engine.token.set()
    async with asyncio.timeout(10):
        await stream({"type": "http"}, client.receive, never)
    assert engine.over

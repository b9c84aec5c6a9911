"""Streamed answers: when the first chunk leaves, and how a stream ends whatever happens in it (SPEC E8, G6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from sagellm_core.errors import EngineError, invalid
from sagellm_core.request_state import Delta, Hear, News
from sagellm_core.server.chat_body import ToolUse
from sagellm_core.server.chunks import Chunks
from sagellm_core.server.shapes import Answer, Echo
from sagellm_core.server.sse import EventStream
from sagellm_protocol import Request, StreamEvent, TokenLogprob
from sagellm_protocol.errors import Error, ErrorCode

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


START = StreamEvent(event="start", request_id="r", prompt_tokens=3)
END = StreamEvent(event="end", request_id="r", finish_reason="stop")


class Engine:
    """What the requests of an answer hear is said by the test."""

    def __init__(self) -> None:
        self.ears: list[Hear] = []
        self.left: list[str] = []

    async def listen(self, request: Request, hear: Hear) -> Callable[[], None]:
        if request.prompt == "bad":
            raise invalid("no", "prompt")
        hear([START])
        self.ears.append(hear)
        return lambda: self.left.append(request.request_id)

    def say(self, *news: News, number: int = 0) -> None:
        self.ears[number](list(news))


def requests(*prompts: str) -> list[Request]:
    return [Request(request_id=prompt, prompt=prompt) for prompt in prompts]


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
    chunks = chunks_of(Answer("chat.completion", "m", tools=tools), *(delta(text) for text in texts), END)
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
    plain = chunks_of(Answer("text_completion", "m", include_usage=True), START, delta("a"))
    assert plain[0]["usage"] is None
    counted = chunks_of(Answer("text_completion", "m", usage_in_chunks=True), START, delta("a"), delta("b"))
    assert [chunk["usage"]["total_tokens"] for chunk in counted] == [4, 5]


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def answering(
    engine: Engine, client: Client, answer: Answer, *prompts: str, send: Any = None, slow_seconds: float = 60
) -> asyncio.Task[None]:
    """An answer that is under way."""
    asked = requests(*(prompts or ("r",)))
    stream = await EventStream.open(engine.listen, asked, Chunks(answer), slow_seconds)
    task = asyncio.create_task(stream({"type": "http"}, client.receive, send or client.send))
    await turns()
    return task


async def test_nothing_of_an_answer_leaves_before_its_first_token() -> None:
    """A gateway may send a request that still waits to another engine only while its answer has not begun."""
    engine, client = Engine(), Client()
    task = await answering(engine, client, Answer("chat.completion", "m", include_usage=True))
    assert client.chunks == []
    engine.say(Delta(0, "Hi", [5]))
    engine.say(END)
    await task
    *chunks, last = client.chunks
    deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Hi"}, {}]
    assert json.loads(chunks[-1])["usage"]["total_tokens"] == 4
    assert last == "[DONE]"
    assert engine.left == ["r"]


async def test_a_step_is_one_write_whatever_it_brought() -> None:
    engine, client = Engine(), Client()
    task = await answering(engine, client, Answer("text_completion", "m", choices=2), "a", "b", "c")
    before = len(client.sent)
    for number in range(3):
        engine.say(delta("x"), delta("y", index=1), number=number)
    await turns()
    assert len(client.sent) == before + 1
    for number in range(3):
        engine.say(END, number=number)
    await task
    indices = {json.loads(chunk)["choices"][0]["index"] for chunk in client.chunks[:-1]}
    assert indices == set(range(6))


async def test_one_refused_prompt_refuses_all() -> None:
    engine = Engine()
    with pytest.raises(EngineError, match="no"):
        await EventStream.open(engine.listen, requests("a", "bad"), Chunks(Answer("text_completion", "m")))
    assert engine.left == ["a"], "the first one is cancelled"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_ends_the_requests(begun: bool) -> None:
    engine, client = Engine(), Client()
    if not begun:
        client.gone.set()
    task = await answering(engine, client, Answer("chat.completion", "m"), "a", "b")
    client.gone.set()
    await task
    assert engine.left == ["a", "b"]
    engine.say(Delta(0, "too late", [1]))


async def test_an_error_on_the_way_is_the_last_event() -> None:
    engine, client = Engine(), Client()
    task = await answering(engine, client, Answer("text_completion", "m"))
    engine.say(delta("x"))
    error = Error(code=ErrorCode.UNAVAILABLE, message="the engine stopped")
    engine.say(END.model_copy(update={"finish_reason": "error", "error": error}))
    await task
    assert json.loads(client.chunks[-1])["error"]["message"] == "the engine stopped"
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_fault_of_the_servers_own_breaks_the_answer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, client = Engine(), Client()
    task = await answering(engine, client, Answer("text_completion", "m"))

    def broken(*_: Any) -> bytes:
        raise RuntimeError("a fault of the server's own")

    monkeypatch.setattr(Chunks, "of", broken)
    engine.say(delta("x"))
    with pytest.raises(RuntimeError, match="own"):
        await task
    assert engine.left == ["r"]


async def test_what_a_slow_client_has_not_read_is_put_together() -> None:
    engine, client = Engine(), Client()
    full, reads = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        if full.is_set():
            await reads.wait()
        await client.send(message)

    task = await answering(engine, client, Answer("text_completion", "m"), send=send)
    full.set()
    for text in "abcd":
        engine.say(delta(text))
    await turns()
    assert client.chunks == [], "nobody waits for it"
    engine.say(END)
    reads.set()
    await task
    bodies = [message["body"] for message in client.sent if message.get("body")]
    assert [body.count(b"data: ") for body in bodies] == [1, 5], "what came meanwhile in one write"
    texts = [json.loads(chunk)["choices"][0]["text"] for chunk in client.chunks[:-1]]
    assert "".join(texts) == "abcd"


async def test_a_client_that_reads_no_more_is_given_up() -> None:
    engine, client = Engine(), Client()

    async def never(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    task = await answering(engine, client, Answer("chat.completion", "m"), send=never, slow_seconds=0.02)
    engine.say(Delta(0, "Hi", [5]))
    async with asyncio.timeout(10):
        await task
    assert engine.left == ["r"]


async def test_a_client_that_leaves_the_last_piece_unread_is_given_up() -> None:
    engine, client = Engine(), Client()

    async def never(message: Any) -> None:
        if message.get("more_body") is False:
            await asyncio.Event().wait()

    task = await answering(engine, client, Answer("chat.completion", "m"), send=never, slow_seconds=0.02)
    engine.say(Delta(0, "Hi", [5]), END)
    async with asyncio.timeout(10):
        await task
    assert engine.left == ["r"]

"""`sage bench llm` against servers that behave as a test tells them (SPEC X10)."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.conftest import SAGE

from sage.common.errors import NotRunningError, UpstreamError
from sage.llm.bench import Load, Round, run, table

pytestmark = pytest.mark.spec("X10")
PATH = "/v1/completions"


class Server:
    """Answers with three pieces of text; counts who is there at once."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.at_once = self.most = 0
        upstream.on[PATH] = upstream.on["/v1/chat/completions"] = self.answer

    @property
    def load(self) -> Load:
        return Load(self.upstream.url + "/v1", requests=12, concurrency=3, output_tokens=3, prompt_tokens=(40, 40))

    async def answer(self, exchange: Any) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await exchange.begin_stream()
        for _ in range(3):
            await exchange.event({"choices": [{"text": "x", "finish_reason": None}]})
            await asyncio.sleep(0.01)
        words = len(_text(exchange.json).split())
        await exchange.event({"choices": [{"text": "", "finish_reason": "length"}]})
        await exchange.event({"choices": [], "usage": {"prompt_tokens": 2 * words, "completion_tokens": 3}})
        await exchange.event(b"[DONE]")
        self.at_once -= 1
        await exchange.end_stream()


def _text(body: dict[str, Any]) -> str:
    text: str = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
    return text


@pytest.fixture
async def server(upstream: Callable[..., Awaitable[Any]]) -> Server:
    return Server(await upstream())


async def test_every_request_is_sent_measured_and_counted_by_the_servers_own_tokens(server: Server) -> None:
    heard: list[int] = []
    outcomes = await run(server.load, progress=heard.append)
    assert len(outcomes) == 12
    assert heard == list(range(1, 13))
    assert server.most == 3, "a closed loop of three"
    for outcome in outcomes:
        assert outcome.error == ""
        assert outcome.output_tokens == 3
        assert 0 < outcome.ttft < outcome.ended_at - outcome.sent_at
        assert outcome.tpot is not None
        assert outcome.tpot >= 0.004, "ten milliseconds lie between the pieces"
    bodies = [exchange.json for exchange in server.upstream.seen]
    assert {body["max_tokens"] for body in bodies} == {3}
    assert len({_text(body) for body in bodies}) == len(bodies), "no prompt twice"


async def test_prompts_have_the_wanted_length_in_the_servers_tokens_and_come_again(server: Server) -> None:
    """The server says two tokens a word: forty tokens are twenty words."""
    first = await run(server.load)
    assert {outcome.prompt_tokens for outcome in first} == {40}
    texts = [_text(exchange.json) for exchange in server.upstream.seen]
    server.upstream.seen.clear()
    await run(server.load)
    assert sorted(_text(exchange.json) for exchange in server.upstream.seen) == sorted(texts)


async def test_what_fails_is_counted_by_its_reason(server: Server) -> None:
    served = 0

    async def sometimes(exchange: Any) -> None:
        nonlocal served
        served += 1
        if served > 2 and served % 3 == 0:
            await exchange.answer(429, {"error": {"message": "full"}})
        elif served > 2 and served % 3 == 1:
            await exchange.begin_stream()
            await exchange.event({"choices": [{"text": "x", "finish_reason": None}]})
            await exchange.event({"error": {"message": "the engine died"}})
            await exchange.end_stream()
        else:
            await server.answer(exchange)

    server.upstream.on[PATH] = sometimes
    measured = Round(server.load, await run(server.load))
    found = measured.summary()
    assert found["errors"] == {"status 429: full": 4, "the engine died": 4}
    assert found["answered"] == 4
    assert found["output_tokens"] == 12
    assert table([measured])[0][:2] == ("3", "4/12")


async def test_a_prompt_that_is_refused_teaches_nothing_of_its_length(server: Server) -> None:
    async def short_only(exchange: Any) -> None:
        if len(_text(exchange.json).split()) > 16:
            await exchange.answer(400, {"error": {"message": "too long"}})
        else:
            await server.answer(exchange)

    server.upstream.on[PATH] = short_only
    outcomes = await run(server.load)
    assert {outcome.error for outcome in outcomes} == {"status 400: too long"}
    assert {len(_text(exchange.json).split()) for exchange in server.upstream.seen} == {16, 20}


async def test_a_server_that_counts_no_tokens_is_measured_by_its_pieces(server: Server) -> None:
    async def uncounted(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"text": "x", "finish_reason": None}]})
        await exchange.event(b"[DONE]")
        await exchange.end_stream()

    server.upstream.on[PATH] = uncounted
    outcomes = await run(server.load)
    assert {(outcome.error, outcome.output_tokens) for outcome in outcomes} == {("", 1)}


async def test_a_server_that_refuses_the_first_request_is_told_at_once(server: Server) -> None:
    async def refuse(exchange: Any) -> None:
        await exchange.answer(404, {"error": {"message": "no such model"}})

    server.upstream.on[PATH] = refuse
    with pytest.raises(UpstreamError) as refused:
        await run(server.load)
    assert "no such model" in refused.value.cause
    await server.upstream.stop()
    with pytest.raises(NotRunningError):
        await run(server.load)


async def test_with_a_rate_requests_do_not_wait_for_each_other(server: Server) -> None:
    async def slow(exchange: Any) -> None:
        await asyncio.sleep(0.2 if len(server.upstream.seen) > 2 else 0)
        await server.answer(exchange)

    server.upstream.on[PATH] = slow
    load = Load(server.upstream.url + "/v1", requests=10, concurrency=100, output_tokens=3, rate=1000)
    await run(load)
    assert server.most > 3


async def test_the_command_prints_a_table_or_json(server: Server, sage: Any) -> None:
    words = ("bench", "llm", "--url", server.upstream.url, "-c", "1,4", "-n", "6", "--output-tokens", "3")
    shown = await asyncio.to_thread(lambda: sage(*words))
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("at once  answered")
    assert [line.split()[:2] for line in lines[1:]] == [["1", "6/6"], ["4", "6/6"]]
    found = json.loads((await asyncio.to_thread(lambda: sage(*words, "--route", "chat", "--json"))).stdout)
    assert [each["concurrency"] for each in found["rounds"]] == [1, 4]
    assert found["rounds"][0]["ttft_ms"]["p50"] > 0
    assert server.upstream.seen[-1].path == "/v1/chat/completions"


@pytest.mark.parametrize("form", ["table", "json"])
async def test_ctrl_c_ends_with_what_was_measured_until_then(server: Server, sage: Any, form: str) -> None:
    """The first round ends; of the second one, four requests end and the others wait until the command is gone."""
    first_round, ended_after = 2 + 6, 4
    reached, over = asyncio.Event(), asyncio.Event()

    async def some(exchange: Any) -> None:
        if len(server.upstream.seen) > first_round + 2 + ended_after:
            reached.set()
            await over.wait()
        else:
            await server.answer(exchange)

    server.upstream.on[PATH] = some
    words = ["bench", "llm", "--url", server.upstream.url, "-c", "1,2", "-n", "6", "--output-tokens", "3"]
    process = await asyncio.create_subprocess_exec(
        SAGE, *words, *(["--json"] if form == "json" else []), env=sage.env, cwd=sage.cwd, stdout=PIPE, stderr=PIPE
    )
    try:
        await asyncio.wait_for(reached.wait(), 60)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        over.set()
        if process.returncode is None:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err.decode()
    if form == "json":
        found = json.loads(out)
        assert found["interrupted"] is True
        assert [each["answered"] for each in found["rounds"]] == [6, ended_after]
    else:
        assert [line.split()[:2] for line in out.decode().splitlines()[1:]] == [["1", "6/6"], ["2", "4/4"]]
        assert "Interrupted: 4 of 6 requests at 2 at once had ended" in err.decode()


async def test_ctrl_c_before_anything_was_measured(server: Server, sage: Any) -> None:
    reached, over = asyncio.Event(), asyncio.Event()

    async def never(_: Any) -> None:
        reached.set()
        await over.wait()

    server.upstream.on[PATH] = never
    process = await asyncio.create_subprocess_exec(
        SAGE, "bench", "llm", "--url", server.upstream.url, env=sage.env, cwd=sage.cwd, stdout=PIPE, stderr=PIPE
    )
    try:
        await asyncio.wait_for(reached.wait(), 60)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        over.set()
        if process.returncode is None:
            process.kill()
    assert (process.returncode, out, err.decode().strip()) == (
        130,
        b"",
        "Interrupted before the first request had ended.",
    )


async def test_a_key_is_sent_and_shown_nowhere(server: Server) -> None:
    load = Load(server.upstream.url + "/v1", requests=1, output_tokens=3, api_key="secret")
    await run(load)
    assert server.upstream.seen[-1].headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(load)

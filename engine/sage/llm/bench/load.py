"""Sends requests and takes the time of every piece of every answer.

A closed loop keeps so many requests under way; with a rate, requests come when a Poisson process says, and wait for a
place where too many are under way. Answers are streamed and hardly looked at, so that the client costs little: tokens
are counted by the server (`usage`), times are those of arriving chunks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import aiohttp
import msgspec

from sage.common.errors import NotRunningError, UpstreamError
from sage.llm.bench.prompts import Prompts

Route = Literal["chat", "completions"]
_PATHS = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. `base_url` ends in /v1. `rate` is requests a second, None for as fast as places become free."""

    base_url: str
    model: str = ""
    route: Route = "completions"
    concurrency: int = 8
    requests: int = 64
    prompt_tokens: tuple[int, int] = (128, 128)
    output_tokens: int = 64
    rate: float | None = None
    seed: int = 0
    timeout_seconds: float = 600.0
    api_key: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Outcome:
    """One request: when it was sent, when its text came, how many tokens the server counted, or why it failed."""

    sent_at: float
    chunks: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str = ""

    @property
    def ttft(self) -> float:
        """Seconds to the first text."""
        return self.chunks[0] - self.sent_at

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first; None for an answer of one."""
        if self.output_tokens < 2:
            return None
        return (self.chunks[-1] - self.chunks[0]) / (self.output_tokens - 1)


async def run(
    load: Load,
    *,
    warmup: int = 2,
    progress: Callable[[int], None] = lambda _: None,
    ended: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Warm up, then send everything; one outcome a request, in the order of sending.

    `progress` hears how many have ended, `ended` each outcome as it comes: who is interrupted has those. Raises
    NotRunningError where nobody listens, UpstreamError where the very first request is refused: then all would be.
    """
    prompts = Prompts(*load.prompt_tokens, load.seed)
    async with _session(load) as session:
        for number in range(max(1, warmup)):
            text = prompts.next() if number else prompts.short()
            outcome = await _ask(session, load, text)
            if outcome.error and number == 0:
                raise _first_refused(load, outcome.error)
            prompts.learn(text, outcome.prompt_tokens)
        return await _send_all(session, load, prompts, progress, ended)


async def _send_all(
    session: aiohttp.ClientSession,
    load: Load,
    prompts: Prompts,
    progress: Callable[[int], None],
    ended: Callable[[Outcome], None],
) -> list[Outcome]:
    places = asyncio.Semaphore(load.concurrency)
    count = 0

    async def one(text: str) -> Outcome:
        nonlocal count
        async with places:
            outcome = await _ask(session, load, text)
        count += 1
        ended(outcome)
        progress(count)
        return outcome

    pauses = random.Random(load.seed)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(load.requests):
            tasks.append(group.create_task(one(prompts.next())))
            if load.rate is not None:
                await asyncio.sleep(pauses.expovariate(load.rate))
    return [task.result() for task in tasks]


@asynccontextmanager
async def _session(load: Load) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {load.api_key}"} if load.api_key else {}
    timeout = aiohttp.ClientTimeout(total=load.timeout_seconds)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        yield session


async def _ask(session: aiohttp.ClientSession, load: Load, text: str) -> Outcome:
    """One request; whatever goes wrong is in its outcome."""
    outcome = Outcome(perf_counter())
    try:
        async with session.post(load.base_url + _PATHS[load.route], json=_body(load, text)) as response:
            if response.status != 200:
                outcome.error = f"status {response.status}: {_message(await response.read())}"
            else:
                await _read(response, outcome)
    except TimeoutError:
        outcome.error = f"no whole answer within {load.timeout_seconds:g} s"
    except (aiohttp.ClientError, OSError) as error:
        outcome.error = str(error) or type(error).__name__
    outcome.ended_at = perf_counter()
    return outcome


def _body(load: Load, text: str) -> dict[str, Any]:
    """A greedy request for exactly so many tokens, where the server knows `ignore_eos`."""
    source: dict[str, Any] = {"prompt": text}
    if load.route == "chat":
        source = {"messages": [{"role": "user", "content": text}]}
    return {
        "model": load.model or "default",
        **source,
        "max_tokens": load.output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Chunk)


async def _read(response: aiohttp.ClientResponse, outcome: Outcome) -> None:
    """Take the time of each arriving part; look into the last few events only."""
    tail = b""
    async for data in response.content.iter_any():
        if b'"finish_reason":null' in data or b'"finish_reason": null' in data:
            outcome.chunks.append(perf_counter())
        tail = (tail + data)[-4096:]
    complete = b"data: [DONE]" in tail
    for event in reversed(tail.split(b"\n\n")):
        data = event.strip().removeprefix(b"data: ")
        if not data.startswith(b"{"):
            continue
        chunk = _decoded(data)
        if chunk.error is not None:
            outcome.error = str(chunk.error.get("message", "the stream broke off"))
        elif chunk.usage is not None:
            outcome.prompt_tokens = chunk.usage.prompt_tokens
            outcome.output_tokens = chunk.usage.completion_tokens
            break
    if not complete and not outcome.error:
        outcome.error = "the stream broke off"
    elif not outcome.chunks and not outcome.error:
        outcome.error = "an answer without text"
    outcome.output_tokens = outcome.output_tokens or len(outcome.chunks)


def _decoded(data: bytes) -> _Chunk:
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError:
        return _Chunk()


def _message(body: bytes) -> str:
    """What an error answer says."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace")
    error = said.get("error", said) if isinstance(said, dict) else said
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]


def _first_refused(load: Load, error: str) -> NotRunningError | UpstreamError:
    if error.startswith(("status ", "no whole", "the stream", "an answer")):
        return UpstreamError(f"{load.base_url} refuses the load", cause=error)
    return NotRunningError(f"Nobody answers at {load.base_url}", cause=error, hint="sage llm serve")

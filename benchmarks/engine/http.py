"""Tokens a second through 64 HTTP streams, beside 64 `engine.stream` in the server's own process.

One process holds one engine and serves it; it is told in turns to put the load on the engine itself and to wait while
this process does so over sockets. So both sides have the same engine, cache and threads. The client reads bytes and
counts tokens by the usage that the server reports; its work is on the same cores, and counts against HTTP.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
from time import perf_counter, process_time
from typing import Any, cast

import uvloop

from benchmarks.engine.findings import Finding

CLIENTS = 64
TOKENS = 64
ROUNDS = 7
_PROMPTS = [[(7 * client + at) % 1500 + 300 for at in range(32)] for client in range(CLIENTS)]


def measure() -> list[Finding]:
    """The ratio for the small model, whose steps are shorter: what a larger one's tokens cost beside it is less."""
    from benchmarks.engine.environments import cache_folder
    from benchmarks.engine.models import SMALL, folder_of

    return [_ratio(SMALL.title, str(folder_of(SMALL, cache_folder())))]


def _ratio(title: str, folder: str, rounds: int = ROUNDS) -> Finding:
    command = [sys.executable, "-m", "benchmarks.engine.http", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        inside: list[float] = []
        outside: list[float] = []
        costs: list[tuple[float, float]] = []
        for number in range(rounds + 1):
            own = _told(process, "load")
            before, mine = _told(process, "cpu"), process_time()
            other = uvloop.run(_over_http(port))
            if number:
                inside.append(own)
                outside.append(other)
                costs.append((_told(process, "cpu") - before, process_time() - mine))
        process.stdin.close()
    rates = [statistics.median(CLIENTS * TOKENS / each for each in side) for side in (inside, outside)]
    ratio = statistics.median(own / other for own, other in zip(inside, outside, strict=True))
    server, client = (1e6 * statistics.median(part) / CLIENTS / TOKENS for part in zip(*costs, strict=True))
    measured = f"{rates[1]:,.0f} / {rates[0]:,.0f} tok/s (CPU a token: server {server:.0f} µs, client {client:.0f} µs)"
    return Finding(f"{title}, {CLIENTS} clients: HTTP streams / in-process", measured, ratio, 0.95, at_least=True)


def _told(process: subprocess.Popen[str], command: str) -> float:
    """What the server answers to a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


# -- the client ------------------------------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One request over a connection of its own; it only looks at the end of what comes."""

    def __init__(self, prompt: list[int]) -> None:
        self._request = _request(prompt)
        self._tail = b""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._tail = data if len(data) > 512 else (self._tail + data)[-512:]

    def connection_lost(self, exc: Exception | None) -> None:
        whole = exc is None and b"[DONE]" in self._tail
        self.ended.set_result(int(self._tail.rsplit(b'"completion_tokens":', 1)[1].split(b",")[0]) if whole else 0)


def _request(prompt: list[int]) -> bytes:
    fields = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    body = json.dumps({**fields, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _over_http(port: int) -> float:
    """Seconds until all streams have ended."""
    loop = asyncio.get_running_loop()
    clients = [_Client(prompt) for prompt in _PROMPTS]
    begun = perf_counter()
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    counts = await asyncio.gather(*(client.ended for client in clients))
    seconds = perf_counter() - begun
    assert counts == [TOKENS] * CLIENTS, counts
    return seconds


# -- the server ------------------------------------------------------------------------------------------------------


async def _in_process(engine: Any) -> float:
    """Seconds until all streams have ended, without HTTP."""
    from sagellm_protocol.sampling import SamplingParams

    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=0.0)

    async def one(prompt: list[int]) -> int:
        count = 0
        async for event in engine.stream(prompt, sampling_params=params):
            count += len(event.chunk_tokens)
        return count

    begun = perf_counter()
    counts = await asyncio.gather(*(one(prompt) for prompt in _PROMPTS))
    seconds = perf_counter() - begun
    assert counts == [TOKENS] * CLIENTS, counts
    return seconds


async def _serve(folder: str) -> None:
    """Serve the model; a line on stdin asks for a round of load from inside, or for the CPU time so far."""
    import uvicorn

    from sagellm_core import LLMEngineConfig
    from sagellm_core.server import EngineService, create_app
    from sagellm_core.server.run import server_config

    config = LLMEngineConfig(model_path=folder, max_batch_size=CLIENTS, max_model_len=256, enable_prefix_cache=False)
    service = EngineService(config)
    server = uvicorn.Server(server_config(create_app(config, service), 1))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serving = asyncio.create_task(server.serve([sock]))
        while (await service.health())[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print(sock.getsockname()[1], flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await _in_process(service.engine) if line == "load\n" else process_time(), flush=True)
        server.should_exit = True
        await serving


def _run_server(folder: str) -> None:
    uvloop.run(_serve(folder))


if __name__ == "__main__":
    _run_server(sys.argv[1])

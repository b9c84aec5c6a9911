"""Tokens a second through 64 HTTP streams, beside 64 `engine.stream` in the server's own process.

One process holds one engine and serves it; it is told in turns to put the load on the engine itself and to wait while
this process does so over sockets. So both sides have the same engine, cache and threads, draw and detokenise the same
tokens, and collect garbage as `sage-engine` does. The client reads some kilobytes at a time, and looks at the answers
when all have ended; its work is on the same cores, and counts against HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import statistics
import subprocess
import sys
from time import perf_counter, process_time, sleep
from typing import Any

import uvloop

from benchmarks.findings import Finding

CLIENTS = 64
TOKENS = 64
ROUNDS = 9
ROUNDS_OF_LARGER = 2
_READ = 4096
_SETTLING = 0.1
_PROMPTS = [[(7 * client + at) % 1500 + 300 for at in range(32)] for client in range(CLIENTS)]


def measure() -> list[Finding]:
    """The ratios for the small model, whose steps are short beside what a token costs outside, and the medium one."""
    from benchmarks.engine.models import MEDIUM, SMALL, folder_of
    from benchmarks.environments import cache_folder

    sides = ((SMALL, ROUNDS), (MEDIUM, ROUNDS_OF_LARGER))
    return [_ratio(shape.title, str(folder_of(shape, cache_folder())), rounds) for shape, rounds in sides]


def _ratio(title: str, folder: str, rounds: int = ROUNDS) -> Finding:
    command = [sys.executable, "-m", "benchmarks.engine.http", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        inside: list[float] = []
        outside: list[float] = []
        costs: list[tuple[float, float, float]] = []
        for number in range(rounds + 1):
            before = _told(process, "cpu")
            own = _told(process, "load")
            between, mine = _told(process, "cpu"), process_time()
            other = _over_http(port)
            if number:
                inside.append(own)
                outside.append(other)
                costs.append((between - before, _told(process, "cpu") - between, process_time() - mine))
        process.stdin.close()
    rates = [statistics.median(CLIENTS * TOKENS / each for each in side) for side in (inside, outside)]
    ratio = statistics.median(own / other for own, other in zip(inside, outside, strict=True))
    cpu = [f"{1e6 * statistics.median(part) / CLIENTS / TOKENS:,.0f} µs" for part in zip(*costs, strict=True)]
    rate = f"{rates[1]:,.0f} / {rates[0]:,.0f} tok/s"
    measured = f"{rate} (CPU a token: in-process {cpu[0]}, server {cpu[1]}, client {cpu[2]})"
    return Finding(f"{title}, {CLIENTS} clients: HTTP streams / in-process", measured, ratio, 0.95, at_least=True)


def _told(process: subprocess.Popen[str], command: str) -> float:
    """What the server answers to a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


# -- the client ------------------------------------------------------------------------------------------------------


def _over_http(port: int) -> float:
    """Seconds from the first request until all streams have ended; the connections are there before.

    One thread on plain sockets, which the kernel wakes for a socket when some kilobytes have come, or the end: it is to
    tell how fast the server is, and take as little as it can of the cores that the server computes on.
    """
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in _PROMPTS]
    sleep(_SETTLING)
    parts: dict[int, list[bytes]] = {each.fileno(): [] for each in sockets}
    with select.epoll() as poll:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _READ)
            poll.register(each, select.EPOLLIN)
        begun = perf_counter()
        for each, prompt in zip(sockets, _PROMPTS, strict=True):
            each.sendall(_request(prompt))
            each.setblocking(False)
        left = len(sockets)
        while left:
            for number, _ in poll.poll():
                data = os.read(number, 1 << 18)
                parts[number].append(data)
                if not data:
                    poll.unregister(number)
                    left -= 1
        seconds = perf_counter() - begun
    for each in sockets:
        each.close()
    for part in parts.values():
        _check(b"".join(part))
    return seconds


def _request(prompt: list[int]) -> bytes:
    fields = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    body = json.dumps({**fields, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _check(answer: bytes) -> None:
    """Raise AssertionError unless it is a whole stream of all tokens."""
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert b"data: [DONE]" in answer[-64:], answer[-200:]
    assert int(answer.rsplit(b'"completion_tokens":', 1)[1].split(b",")[0]) == TOKENS
    assert answer.count(b"data: ") > 3, answer


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
    from sagellm_core.engine_server import leave_to_stay
    from sagellm_core.server import EngineService, create_app
    from sagellm_core.server.run import server_config

    config = LLMEngineConfig(model_path=folder, max_batch_size=CLIENTS, max_model_len=256, enable_prefix_cache=False)
    service = EngineService(config)
    service.on_ready = leave_to_stay
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

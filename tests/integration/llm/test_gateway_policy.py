"""Scheduling policies on a gateway process: chosen by an option, felt by clients."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

pytestmark = pytest.mark.spec("G3")

Start = Callable[..., Awaitable[Any]]
Http = aiohttp.ClientSession
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


async def until_waiting(http: Http, gate: Any, number: int) -> None:
    """Return when so many requests wait."""
    async with asyncio.timeout(10):
        while True:
            async with http.get(gate.url + "/health") as response:
                if sum(engine["waiting"] for engine in (await response.json())["engines"]) == number:
                    return
            await asyncio.sleep(0.01)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    eventually: Start, upstream: Start, gateway: Start, http: Http
) -> None:
    engine = await upstream()
    engine.on[CHAT] = engine.hang
    gate = await gateway(engine, args=("--max-running", "1", "--policy", "slo_aware"))
    running = asyncio.ensure_future(http.post(gate.url + CHAT, json=HELLO))
    await eventually(lambda: engine.seen, "the first one runs")
    for headers, fields in (({"x-sage-deadline-ms": "5"}, {}), ({}, {"deadline_ms": 5})):
        async with http.post(gate.url + CHAT, json={**HELLO, **fields}, headers=headers) as response:
            assert response.status == 503
            assert 1 <= int(response.headers["retry-after"]) <= 60
            error = (await response.json())["error"]
            assert (error["code"], error["type"]) == ("deadline_unreachable", "service_unavailable")
            assert "x-sage-request-id" in response.headers
    async with http.post(gate.url + CHAT, json=HELLO, headers={"x-sage-deadline-ms": "soon"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "invalid_deadline")
    await until_waiting(http, gate, 0)
    assert len(engine.seen) == 1
    running.cancel()


@pytest.mark.parametrize(("policy", "order"), [("fifo", [0, 1, 2]), ("priority", [2, 1, 0])])
async def test_who_waits_is_served_in_the_order_of_the_policy(
    eventually: Start, upstream: Start, gateway: Start, http: Http, policy: str, order: list[int]
) -> None:
    engine, go = await upstream(), asyncio.Event()

    async def answer(exchange: Any) -> None:
        await go.wait()
        await exchange.answer(200, {"choices": []})

    engine.on[CHAT] = answer
    gate = await gateway(engine, args=("--max-running", "1", "--policy", policy))
    posts = [asyncio.ensure_future(http.post(gate.url + CHAT, json=HELLO))]
    await eventually(lambda: engine.seen, "the first one runs")
    for priority in range(3):
        posts.append(asyncio.ensure_future(http.post(gate.url + CHAT, json={**HELLO, "priority": 20 * priority})))
        await until_waiting(http, gate, priority + 1)
    go.set()
    for response in await asyncio.gather(*posts):
        assert response.status == 200
        response.release()
    assert [exchange.json["priority"] // 20 for exchange in engine.seen[1:]] == order


def test_an_unknown_policy_is_refused_with_the_nearest_name(free_port: Callable[[], int]) -> None:
    command = [sys.executable, "-m", "sage.llm.gateway", "--port", str(free_port()), "--policy", "slo-aware"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "'slo_aware'" in done.stderr
    assert "Traceback" not in done.stderr

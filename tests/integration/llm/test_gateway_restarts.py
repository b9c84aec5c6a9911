"""The gateway follows daemon.json: engines that start, move, restart and stop under a supervisor."""

import asyncio
import json
import os
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from sage.common.atomic import write_json
from sage.common.process import ProcessIdentity

Start = Callable[..., Awaitable[Any]]
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


class Stack:
    """Writes daemon.json as the supervisor would; this process stands for all of its daemons."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.file = home / "llm" / "daemon.json"
        self.file.parent.mkdir(parents=True)

    def says(self, state: str, port: int, *, supervised: bool = True, pid: int | None = None) -> None:
        me = ProcessIdentity.current()
        identity = {"pid": me.pid if pid is None else pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id}
        engine = identity | {"name": "engine", "kind": "llm", "state": state, "host": "127.0.0.1", "port": port}
        engine |= {"url": f"http://127.0.0.1:{port}", "model": "tiny"}
        supervisor = {"pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id} if supervised else None
        write_json(self.file, {"version": 1, "supervisor": supervisor, "daemons": {"engine": engine}})


@pytest.fixture
def stack(tmp_path: pathlib.Path) -> Stack:
    return Stack(tmp_path / ".sage")


async def answer_hi(exchange: Any) -> None:
    await exchange.answer(200, {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]})


async def state_of(http: aiohttp.ClientSession, url: str, state: str) -> None:
    """Wait until the gateway says that of its engine."""
    async with asyncio.timeout(10):
        while True:
            async with http.get(url + "/health") as response:
                if [one["state"] for one in (await response.json())["engines"]] == [state]:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.spec("R1")
async def test_a_request_waits_for_an_engine_that_restarts(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    engine = await upstream("tiny")
    engine.on[CHAT] = answer_hi
    stack.says("ready", engine.port)
    gate = await daemon("sage.llm.gateway", home=stack.home, probe="/ready")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200

    await engine.stop()  # nobody has noticed yet: daemon.json still says ready
    waiting = asyncio.ensure_future(http.post(gate.url + CHAT, json={**HELLO, "model": "tiny"}))
    await state_of(http, gate.url, "down")
    stack.says("backing-off", engine.port)
    await state_of(http, gate.url, "backing-off")
    assert not waiting.done()
    engine.port = 0
    await engine.start()  # on another port
    stack.says("ready", engine.port)
    async with await waiting as response:
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.spec("R1")
async def test_a_whole_answer_that_broke_off_is_asked_for_again(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    engine = await upstream("tiny")

    async def die_once(exchange: Any) -> None:
        engine.on[CHAT] = answer_hi
        await exchange.raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"cho')
        exchange.die()

    engine.on[CHAT] = die_once
    stack.says("ready", engine.port)
    gate = await daemon("sage.llm.gateway", home=stack.home, probe="/ready")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200
    assert len(engine.seen) == 2


@pytest.mark.spec("R1")
async def test_a_stream_that_broke_off_mid_answer_is_not_repeated_and_the_next_one_works(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    engine = await upstream("tiny")

    async def die_once(exchange: Any) -> None:
        engine.on[CHAT] = answer_hi
        await exchange.begin_stream()
        await exchange.event({"choices": []})
        await asyncio.sleep(0.05)
        exchange.die()

    engine.on[CHAT] = die_once
    stack.says("ready", engine.port)
    gate = await daemon("sage.llm.gateway", home=stack.home, probe="/ready")
    async with http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response:
        text = await response.text()
    assert '"upstream_died"' in text
    assert "[DONE]" not in text
    assert len(engine.seen) == 1
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200


@pytest.mark.spec("R1")
async def test_no_waiting_where_nobody_restarts_the_engine(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    engine = await upstream("tiny")
    stack.says("ready", engine.port)
    gate = await daemon("sage.llm.gateway", "--wait-seconds", "600", home=stack.home, probe="/ready")
    for state, supervised, shown in [
        ("stopped", True, "stopped"),
        ("crash-loop", True, "crash-loop"),
        ("ready", False, "ready"),
    ]:
        stack.says(state, engine.port, supervised=supervised)
        await state_of(http, gate.url, shown)
        if not supervised:
            await engine.stop()
        async with http.post(gate.url + CHAT, json=HELLO) as response:
            assert response.status == 503
            assert "sage llm" in (await response.json())["error"]["message"]


@pytest.mark.spec("R1")
async def test_waiting_has_an_end(stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession) -> None:
    engine = await upstream("tiny")
    await engine.stop()
    stack.says("starting", engine.port, pid=os.getpid())
    gate = await daemon("sage.llm.gateway", "--wait-seconds", "0.3", home=stack.home)
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 503
        assert "engine: starting" in (await response.json())["error"]["message"]


@pytest.mark.spec("R3")
async def test_a_damaged_daemon_json_does_not_stop_the_gateway(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    stack.file.write_text("{half")
    gate = await daemon("sage.llm.gateway", home=stack.home)
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 503
    stack.file.write_text(json.dumps({"daemons": {"engine": 5, "x": {"kind": "llm", "url": 7}}}))
    engine = await upstream("tiny")
    engine.on[CHAT] = answer_hi
    stack.says("ready", engine.port)
    await state_of(http, gate.url, "ready")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200


@pytest.mark.spec("G1")
async def test_who_was_told_ready_finds_the_model_listed_at_once(
    stack: Stack, upstream: Start, daemon: Start, http: aiohttp.ClientSession
) -> None:
    """Between "starting" and "ready" the gateway learns nothing by itself in time: the list asks first."""
    gate = await daemon("sage.llm.gateway", home=stack.home)
    engine = await upstream("tiny")
    stack.says("starting", engine.port)
    for _ in range(5):
        stack.file.unlink(missing_ok=True)
        stack.says("starting", 1)  # nothing answers there: probes of it fail
        await state_of(http, gate.url, "starting")
        stack.says("ready", engine.port)
        async with http.get(gate.url + "/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["tiny"]
        stack.file.unlink()
        await gone(http, gate.url)


async def gone(http: aiohttp.ClientSession, url: str) -> None:
    """Wait until the gateway knows no engine."""
    async with asyncio.timeout(10):
        while True:
            async with http.get(url + "/health") as response:
                if not (await response.json())["engines"]:
                    return
            await asyncio.sleep(0.02)

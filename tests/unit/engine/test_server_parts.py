"""Small parts of the engine server: when to come again, whether the model computes, keys, bodies (SPEC E8, G6, R4)."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sage.common.errors import ConfigError
from sagellm_core import EngineError
from sagellm_core.api_keys import KEY_VARIABLE, read_keys
from sagellm_core.engine_core.core import CoreStats
from sagellm_core.llm_engine import LLMEngine
from sagellm_core.server.auth import KeyCheck
from sagellm_core.server.health import Pulse
from sagellm_core.server.reading import decode
from sagellm_core.server.retry import DrainRate
from sagellm_protocol import Request

pytestmark = pytest.mark.spec("E8", "G6", "R4")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# -- Retry-After -------------------------------------------------------------------------------------------------------


def test_who_is_refused_is_told_when_a_place_should_be_free() -> None:
    clock = Clock()
    rate = DrainRate(clock)
    for _ in range(20):
        clock.now += 3.0
        rate.departed()
    assert [rate.refused() for _ in range(3)] == [3, 6, 9], "one place every three seconds, one client a place"
    rate.departed()
    assert rate.refused() <= 9, "somebody left"


def test_an_engine_that_drains_no_more_tells_longer_and_longer_times() -> None:
    clock = Clock()
    rate = DrainRate(clock)
    assert rate.refused() == 1
    rate.departed()
    clock.now += 40
    assert rate.refused() == 40
    clock.now += 400
    assert rate.refused() == 60, "never more than a minute"


# -- health ------------------------------------------------------------------------------------------------------------


class Engine(LLMEngine):
    """An engine whose steps are counted by hand."""

    def __init__(self) -> None:
        self.counted = CoreStats()
        self.asked: list[Request] = []
        self.answer: Any = None
        self.held = asyncio.Event()
        self.held.set()

    @property
    def stats(self) -> CoreStats:
        return self.counted

    async def complete(self, request: Request) -> Any:
        self.asked.append(request)
        await self.held.wait()
        if isinstance(self.answer, Exception):
            raise self.answer


async def test_an_idle_engine_is_asked_for_one_token_now_and_then() -> None:
    clock, engine = Clock(), Engine()
    pulse = Pulse(engine, clock=clock)
    assert await pulse.fault() is None
    assert len(engine.asked) == 1
    assert engine.asked[0].sampling_params is not None
    assert engine.asked[0].sampling_params.max_tokens == 1
    assert engine.asked[0].priority < 0
    clock.now += 10
    assert await pulse.fault() is None
    assert len(engine.asked) == 1, "that was proof enough"
    clock.now += 10
    assert await pulse.fault() is None
    assert len(engine.asked) == 2


async def test_a_working_engine_is_left_alone() -> None:
    clock, engine = Clock(), Engine()
    pulse = Pulse(engine, clock=clock)
    for _ in range(10):
        clock.now += 20
        engine.counted.steps += 1
        engine.counted.running = 1
        assert await pulse.fault() is None
    assert engine.asked == []


async def test_an_engine_whose_steps_do_not_end_is_ill() -> None:
    clock, engine = Clock(), Engine()
    pulse = Pulse(engine, clock=clock)
    engine.counted.steps = 1
    assert await pulse.fault() is None
    clock.now += 1000
    engine.counted.running = 1
    assert await pulse.fault() is None, "it has only just begun, as far as anybody has seen"
    clock.now += 130
    fault = await pulse.fault()
    assert fault is not None
    assert "no step" in fault
    engine.counted.steps += 1
    assert await pulse.fault() is None


async def test_an_idle_engine_that_gives_no_token_is_ill() -> None:
    engine = Engine()
    engine.held.clear()
    pulse = Pulse(engine, clock=Clock(), patience_seconds=0.01)
    fault = await pulse.fault()
    assert fault is not None
    assert "no token" in fault
    assert len(engine.asked) == 1
    assert await pulse.fault() is not None
    assert len(engine.asked) == 1, "the question still stands"
    engine.held.set()
    await asyncio.sleep(0)


async def test_the_reason_of_a_refusal_is_told() -> None:
    from sagellm_protocol.errors import ErrorCode

    engine = Engine()
    engine.answer = EngineError(ErrorCode.INTERNAL, "the model gave no usable numbers")
    assert await Pulse(engine, clock=Clock()).fault() == "the model gave no usable numbers"
    engine.answer = EngineError(ErrorCode.RESOURCE_EXHAUSTED, "full")
    assert await Pulse(engine, clock=Clock()).fault() is None, "others keep it busy"


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b'{"prompt": [' + b"[]," * 5_000_000 + b"[]]}",
        b'{"prompt": [' + b"1," * 8_000_000 + b"1]}",
        b'{"messages": [' + b'{"a":1},' * 2_000_000 + b"{}]}",
        b"[" * 16_000_000,
    ],
)
def test_a_body_of_millions_of_values_is_refused_without_making_them(data: bytes) -> None:
    """Making them takes seconds in which nobody else is served; counting takes milliseconds."""
    begun = time.thread_time()
    with pytest.raises(EngineError, match="too many values"):
        decode(data)
    assert time.thread_time() - begun < 0.5


def test_a_long_text_is_no_body_of_many_values() -> None:
    text = "for (i = 0; i < n; i++) { a[i] = {x, y}; }\n" * 20_000
    assert decode(json.dumps({"prompt": text}).encode()) == {"prompt": text}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_come_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "from-env, second")
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-file\n\n")
    assert read_keys(["given"], str(file)) == ["given", "from-env", "second", "from-file"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "with space\n", "ümlaut\n"])
def test_a_file_without_a_usable_key_is_an_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_keys([], str(file))
    with pytest.raises(ConfigError):
        read_keys([], str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic right", 401),
        ("Bearer ", 401),
        ("Bearer right", 200),
        ("bearer second", 200),
    ],
)
def test_who_has_no_key_gets_no_answer(header: str | None, status: int) -> None:
    async def page(_: Any) -> PlainTextResponse:
        return PlainTextResponse("in")

    app = Starlette(routes=[Route("/v1/models", page), Route("/health", page)])
    client = TestClient(KeyCheck(app, ["right", "second"]))
    answer = client.get("/v1/models", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/health").status_code == 200

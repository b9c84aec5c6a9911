"""Ranks and their engine are killed: requests end with a reason, and no process outlives the engine (SPEC E5)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.helpers.processes import children_of
from tests.helpers.tiny_models import tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig
from sagellm_protocol import ErrorCode, SamplingParams

pytestmark = [pytest.mark.faults, pytest.mark.spec("E5")]
ENDLESS = SamplingParams(max_tokens=240, ignore_eos=True)


def config(folder: Path, **changes: object) -> LLMEngineConfig:
    settings = {"max_model_len": 256, "backend_type": "cpu", **changes}
    return LLMEngineConfig.model_validate({"model_path": str(folder), **settings})


def ranks() -> list[psutil.Process]:
    return children_of("sagellm_core.executor.rank")


async def test_a_rank_that_is_killed_in_a_step_takes_the_engine_down_and_says_so() -> None:
    engine = LLMEngine(config(tiny_model("llama"), tensor_parallel_size=2))
    await engine.start()
    try:
        stream = engine.stream([5, 6, 7], sampling_params=ENDLESS)
        assert [(await anext(stream)).event for _ in range(3)] == ["start", "delta", "delta"]
        os.kill(ranks()[1].pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            rest = [event async for event in stream]
        assert rest[-1].finish_reason == "error"
        assert rest[-1].error is not None
        assert rest[-1].error.code is ErrorCode.DISTRIBUTED_RUNTIME_ERROR
        assert "SIGKILL" in rest[-1].error.message
        assert not await engine.health_check()
        assert ranks() == []
        with pytest.raises(EngineError) as caught:
            await engine.generate([5, 6], max_tokens=1)
        assert caught.value.error_code is ErrorCode.UNAVAILABLE
    finally:
        await engine.stop()


async def test_a_rank_that_dies_while_nothing_runs_is_noticed() -> None:
    engine = LLMEngine(config(tiny_model("llama"), pipeline_parallel_size=2))
    await engine.start()
    try:
        await engine.generate([5, 6], max_tokens=2)
        os.kill(ranks()[0].pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            while await engine.health_check():  # noqa: ASYNC110 - a real process is polled
                await asyncio.sleep(0.02)
    finally:
        await engine.stop()
    assert ranks() == []


async def test_an_engine_stops_though_a_rank_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagellm_core.engine_core.launcher._HANG_S", 0.5)
    engine = LLMEngine(config(tiny_model("llama"), tensor_parallel_size=2))
    await engine.start()
    stream = engine.stream([5, 6, 7], sampling_params=ENDLESS)
    assert [(await anext(stream)).event for _ in range(3)] == ["start", "delta", "delta"]
    os.kill(ranks()[1].pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            await engine.stop()
            assert [event async for event in stream][-1].finish_reason == "error"
    finally:
        for rank in ranks():
            rank.kill()


_ENGINE = """
import asyncio, sys
from sagellm_core import LLMEngine, LLMEngineConfig
async def main():
    engine = LLMEngine(LLMEngineConfig(model_path=sys.argv[1], tensor_parallel_size=2, max_model_len=256))
    await engine.start()
    print("ready", flush=True)
    await engine.generate([5, 6, 7], max_tokens=10_000)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_nothing_outlives_an_engine_that_is_killed(until: Callable[..., None], tmp_path: Path) -> None:
    folder = tiny_model("llama")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-c", _ENGINE, str(folder)]
    engine = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
    assert engine.stdout is not None
    with engine.stdout:
        assert engine.stdout.readline() == "ready\n"
        started = psutil.Process(engine.pid).children()
        assert len(started) == 2
        engine.kill()
        engine.wait()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in started), within=20)
    assert list(tmp_path.glob("sage-*")) == []


_ALONE = """
import sys
from pathlib import Path
from sagellm_core.executor.rank import LifeWatch
LifeWatch(int(sys.argv[1]), [Path(sys.argv[2])]).leave(alone=True)
"""


def test_who_hears_of_the_end_over_the_connection_first_still_removes_the_folders(tmp_path: Path) -> None:
    folder = tmp_path / "left"
    (folder / "logs").mkdir(parents=True)
    life, ours = os.pipe()
    try:
        process = subprocess.Popen([sys.executable, "-c", _ALONE, str(life), str(folder)], pass_fds=[life])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert folder.exists()
    finally:
        os.close(ours)
        os.close(life)
    process.wait(30)
    assert not folder.exists()

"""Sleep gives memory back and loses nothing, wake goes on where it was, reload changes a running engine's model."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.lora import merged, write_adapter
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_core.executor.base import WorkerInfo
from sagellm_core.worker.worker import Worker
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams

PROMPT = [40, 7, 112, 55, 201, 9, 33, 18, 90, 150, 61, 73]


@asynccontextmanager
async def engine_for(folder: Path, **changes: Any) -> AsyncGenerator[LLMEngine, None]:
    settings: dict[str, Any] = {"dtype": "float32", "backend_type": "cpu", "max_model_len": 256} | changes
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def greedy(engine: LLMEngine, tokens: int = 12, **fields: Any) -> list[int]:
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0)
    request = Request(request_id=f"r{id(sampling)}", prompt=PROMPT, sampling_params=sampling, **fields)
    return (await engine.complete(request)).output_tokens


class Gate:
    """Holds the worker before its fifth step until the test has given its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        steps = itertools.count(1)
        execute = Worker.execute

        def held(worker: Worker, plan: SchedulerOutput) -> StepOutput:
            if next(steps) == 5:
                self._reached.set()
                assert self._open.wait(60)
            return execute(worker, plan)

        monkeypatch.setattr(Worker, "execute", held)

    async def order(self, what: Coroutine[Any, Any, None]) -> None:
        """Have this carried out between the fifth step and the sixth."""
        assert await asyncio.to_thread(self._reached.wait, 60)
        order = asyncio.create_task(what)
        await asyncio.sleep(0)
        self._open.set()
        await order


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def test_requests_go_on_where_they_were(gate: Gate) -> None:
    folder = tiny_model("llama")
    async with engine_for(folder) as engine:
        running = asyncio.create_task(greedy(engine, 60))
        await gate.order(engine.sleep())
        steps = engine.get_metrics()["steps_total"]
        assert engine.asleep
        assert not running.done()
        with pytest.raises(EngineError, match="asleep: wake it with POST /wake_up"):
            await greedy(engine)
        assert engine.get_metrics()["steps_total"] == steps
        await engine.wake()
        assert await running == expected_tokens(folder, PROMPT, 60)
        assert await greedy(engine) == expected_tokens(folder, PROMPT, 12)


async def test_drafts_and_adapters_survive(gate: Gate, tmp_path: Path) -> None:
    base = tiny_model("llama")
    adapter = write_adapter(tmp_path / "adapter", base)
    expected = expected_tokens(merged(tmp_path / "merged", base, adapter), PROMPT, 40)
    changes = {"lora_adapters": {"mine": str(adapter)}, "speculative_model": str(base), "num_speculative_tokens": 2}
    async with engine_for(base, **changes) as engine:
        running = asyncio.create_task(greedy(engine, 40, adapter="mine"))
        await gate.order(engine.sleep())
        assert not running.done()
        await engine.wake()
        assert await running == expected


WATCHED_SLEEP = """
import asyncio, gc, sys, psutil
from sagellm_core import LLMEngine, LLMEngineConfig

async def main():
    engine = LLMEngine(LLMEngineConfig(model_path=sys.argv[1], dtype="float32", backend_type="cpu", max_model_len=256))
    await engine.start()
    before = (await engine.generate([40, 7, 112, 55], max_tokens=12)).output_tokens
    gc.collect()
    awake = psutil.Process().memory_info().rss
    await engine.sleep()
    print(awake - psutil.Process().memory_info().rss)
    await engine.wake()
    print((await engine.generate([40, 7, 112, 55], max_tokens=12)).output_tokens == before)
    await engine.stop()

asyncio.run(main())
"""


@pytest.mark.slow
def test_memory_is_given_back_and_taken_again() -> None:
    """In a process of its own: what other tests left in this one's heap would take or hide memory."""
    folder = tiny_model("llama", hidden_size=512, intermediate_size=2048, num_hidden_layers=8, head_dim=128)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    argv = [sys.executable, "-c", WATCHED_SLEEP, str(folder)]
    given_back, same = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout.split()
    assert int(given_back) > 0.7 * weights
    assert same == "True"


async def test_who_sleeps_twice_wakes_once() -> None:
    async with engine_for(tiny_model("llama")) as engine:
        await engine.wake()
        await engine.sleep()
        await engine.sleep()
        await engine.wake()
        await engine.wake()
        assert await greedy(engine) == expected_tokens(tiny_model("llama"), PROMPT, 12)


async def test_a_model_that_is_gone_cannot_be_woken_until_it_is_back(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    async with engine_for(folder) as engine:
        await engine.sleep()
        weights = folder / "model.safetensors"
        weights.rename(tmp_path / "elsewhere")
        with pytest.raises(ModelLoadError):
            await engine.wake()
        assert engine.asleep
        (tmp_path / "elsewhere").rename(weights)
        await engine.wake()
        assert await greedy(engine) == expected_tokens(tiny_model("llama"), PROMPT, 12)


async def test_a_sleeping_engine_can_be_stopped(gate: Gate) -> None:
    async with engine_for(tiny_model("llama")) as engine:
        running = asyncio.create_task(greedy(engine, 60))
        await gate.order(engine.sleep())
        await engine.stop()
        with pytest.raises(EngineError, match="stopped"):
            await running


async def test_reload_takes_another_model_after_what_runs(gate: Gate) -> None:
    first, second = tiny_model("llama"), tiny_model("qwen2", seed=3)
    async with engine_for(first) as engine:
        running = asyncio.create_task(greedy(engine, 60))
        await gate.order(engine.reload(str(second)))
        assert await running == expected_tokens(first, PROMPT, 60)
        assert await greedy(engine) == expected_tokens(second, PROMPT, 12)
        assert engine.get_info()["architecture"] == "Qwen2ForCausalLM"


async def test_a_model_that_does_not_load_leaves_the_old_one(tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model("llama", seed=5), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"torn")
    async with engine_for(tiny_model("llama")) as engine:
        with pytest.raises(ModelLoadError):
            await engine.reload(str(broken))
        assert await greedy(engine) == expected_tokens(tiny_model("llama"), PROMPT, 12)


async def test_who_stops_waiting_for_a_reload_that_has_begun_has_the_new_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tiny_model("llama"), tiny_model("qwen2", seed=3)
    loading, go_on = threading.Event(), threading.Event()
    load = Worker.load

    async with engine_for(first) as engine:

        def held(worker: Worker) -> WorkerInfo:
            loading.set()
            assert go_on.wait(60)
            return load(worker)

        monkeypatch.setattr(Worker, "load", held)
        reload = asyncio.create_task(engine.reload(str(second)))
        assert await asyncio.to_thread(loading.wait, 60)
        reload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reload
        with pytest.raises(EngineError, match="loading another model"):
            await greedy(engine)
        go_on.set()
        async with asyncio.timeout(60):
            while not await engine.health_check() or engine.get_info()["state"] != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert engine.get_info()["architecture"] == "Qwen2ForCausalLM"
        assert await greedy(engine) == expected_tokens(second, PROMPT, 12)


async def test_a_reload_that_was_taken_back_keeps_nobody_waiting(gate: Gate) -> None:
    async with engine_for(tiny_model("llama")) as engine:
        running = asyncio.create_task(greedy(engine, 200))

        async def give_up_and_stop() -> None:
            reload = asyncio.create_task(engine.reload(str(tiny_model("qwen2", seed=3))))
            while engine.get_info()["state"] != "loading another model":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            reload.cancel()
            await asyncio.wait([reload])
            assert engine.get_info()["state"] == "ready"
            await engine.stop()

        await gate.order(give_up_and_stop())
        with pytest.raises(EngineError, match="stopped"):
            async with asyncio.timeout(20):
                await running

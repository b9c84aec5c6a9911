"""Nodes of a runtime are killed: answers go on elsewhere, to the token, and no node outlives its runtime (SPEC E6)."""

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
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import LLMEngineConfig
from sagellm_core.runtime import DistributedRuntime, PDLayout
from sagellm_protocol import SamplingParams

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.spec("E6")]
PROMPTS = [[(11 * row + 5 * at) % 300 + 5 for at in range(70 + 9 * row)] for row in range(4)]
LONG = SamplingParams(max_tokens=120, ignore_eos=True)


def new_runtime(layout: PDLayout) -> DistributedRuntime:
    config = LLMEngineConfig(
        model_path=str(tiny_model("llama")), max_model_len=256, dtype="float32", backend_type="cpu"
    )
    return DistributedRuntime(config, layout)


async def tokens_of(runtime: DistributedRuntime, prompt: list[int], begun: asyncio.Event) -> list[int]:
    tokens: list[int] = []
    async for event in runtime.stream(prompt, sampling_params=LONG):
        tokens += event.chunk_tokens
        if len(tokens) >= 5:
            begun.set()
        if event.event == "end":
            assert event.finish_reason == "length", event.error
            assert event.output_tokens == tokens
    return tokens


async def test_answers_of_a_decode_node_that_dies_go_on_after_a_re_prefill() -> None:
    wanted = [expected_tokens(tiny_model("llama"), prompt, 120) for prompt in PROMPTS]
    runtime = new_runtime(PDLayout(prefill_threshold_tokens=32))
    await runtime.start()
    try:
        begun = [asyncio.Event() for _ in PROMPTS]
        tasks = [
            asyncio.create_task(tokens_of(runtime, prompt, event)) for prompt, event in zip(PROMPTS, begun, strict=True)
        ]
        async with asyncio.timeout(90):
            await asyncio.gather(*(event.wait() for event in begun))
            os.kill(runtime.executor.pids()["decode-0"], signal.SIGKILL)
            assert await asyncio.gather(*tasks) == wanted
        metrics = runtime.get_metrics()
        assert metrics["re_prefills_total"] >= 1
        assert metrics["nodes_up"] == 2
        os.kill(runtime.executor.pids()["prefill-0"], signal.SIGKILL)
        fresh = PROMPTS[0][::-1]
        async with asyncio.timeout(60):  # whether the node that prefills is back yet or not
            response = await runtime.generate(fresh, sampling_params=LONG)
        assert response.output_tokens == expected_tokens(tiny_model("llama"), fresh, 120)
        assert await runtime.health_check()
    finally:
        await runtime.stop()


@pytest.mark.exhaustive
async def test_a_node_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagellm_core.pd_executor._SILENCE_S", 6.0)
    runtime = new_runtime(PDLayout(prefill_threshold_tokens=32))
    await runtime.start()
    try:
        begun = asyncio.Event()
        task = asyncio.create_task(tokens_of(runtime, PROMPTS[0], begun))
        async with asyncio.timeout(90):
            await begun.wait()
            os.kill(runtime.executor.pids()["decode-0"], signal.SIGSTOP)
            assert await task == expected_tokens(tiny_model("llama"), PROMPTS[0], 120)
        assert runtime.get_metrics()["re_prefills_total"] == 1
    finally:
        await runtime.stop()


_RUNTIME = """
import asyncio, sys
from sagellm_core import LLMEngineConfig
from sagellm_core.runtime import DistributedRuntime
async def main():
    runtime = DistributedRuntime(LLMEngineConfig(model_path=sys.argv[1], max_model_len=256))
    await runtime.start()
    print("ready", "torch" in sys.modules, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_nothing_outlives_a_runtime_that_is_killed(until: Callable[..., None], tmp_path: Path) -> None:
    runtime = subprocess.Popen(
        [sys.executable, "-c", _RUNTIME, str(tiny_model("llama"))],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert runtime.stdout is not None
    with runtime.stdout:
        assert runtime.stdout.readline() == "ready False\n"
        nodes = psutil.Process(runtime.pid).children(recursive=True)
        assert len(nodes) == 2
        runtime.kill()
        runtime.wait()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in nodes), within=20)
    assert list(tmp_path.glob("sage-*")) == []

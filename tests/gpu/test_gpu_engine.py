"""The engine on the device: tokens of transformers, through CUDA graphs and without them; smaller types; faults."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.plans import Batch, step_of
from tests.helpers.tiny_models import OWN, expected_tokens, tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig
from sagellm_core.backends.cuda import CUDABackend
from sagellm_core.models import locate_model, read_model_config
from sagellm_core.worker import Worker
from sagellm_protocol import Request, SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.spec("E5", "E7")]
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


async def answers(folder: Path, prompts: list[list[int]], params: SamplingParams, **config: Any) -> list[list[int]]:
    settings = {"backend_type": "cuda", "dtype": "float32", "max_batch_size": 8, "max_model_len": 128, **config}
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), **settings))
    await engine.start()
    try:
        requests = [
            Request(request_id=f"r{index}", model="m", prompt=prompt, sampling_params=params)
            for index, prompt in enumerate(prompts)
        ]
        return [each.output_tokens for each in await asyncio.gather(*(engine.execute(each) for each in requests))]
    finally:
        await engine.stop()


def prompts_of(*lengths: int) -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(5, 300) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("recorded", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("family", [*OWN, "gpt_neox", "olmo2"])
async def test_greedy_tokens_are_those_of_transformers(
    family: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not recorded:
        monkeypatch.setattr(CUDABackend, "capture", lambda *arguments: None)
    folder = tiny_model(family)
    prompts = prompts_of(3, 30, 11, 50, 1)
    expected = [expected_tokens(folder, prompt, 24) for prompt in prompts]
    assert await answers(folder, prompts, GREEDY, max_num_batched_tokens=32) == expected
    assert await answers(folder, prompts[:1], GREEDY) == expected[:1]


async def test_seeded_draws_do_not_change_with_the_batch() -> None:
    folder = tiny_model("llama")
    params = SamplingParams(temperature=0.8, seed=4, max_tokens=16, ignore_eos=True, top_p=0.9)
    alone = await answers(folder, prompts_of(9), params)
    beside = await answers(folder, prompts_of(9, 20, 3), params)
    assert beside[0] == alone[0]


def test_a_recorded_step_gives_the_logits_of_a_plain_one() -> None:
    """The built-in model in bfloat16, one sequence and several."""
    folder = locate_model("sage-builtin")
    for count in (1, 3, 20):
        plan = step_of([(1, 40 + index) for index in range(count)], 16, seed=count)
        logits = []
        for capture in (True, False):
            config = LLMEngineConfig(model_path=str(folder), backend_type="cuda", dtype="bfloat16", max_batch_size=32)
            worker = Worker(config, read_model_config(folder), folder, 256)
            worker.load()
            runner = worker._runner
            assert runner is not None
            assert runner._recorded is not None
            if capture:
                step = runner._recorded.run(plan, list(range(count)))
                assert step is not None
                logits.append(step.logits.float().clone())
            else:
                with torch.inference_mode():
                    logits.append(runner.model.logits(runner._forward(plan)).float())
        assert (logits[0] - logits[1]).norm() <= 1e-2 * logits[1].norm()


def perplexity(texts: list[list[int]], **settings: Any) -> float:
    """Of the built-in model, each text in one step."""
    folder = locate_model("sage-builtin")
    config = LLMEngineConfig(model_path=str(folder), backend_type="cuda", max_batch_size=1, **settings)
    worker = Worker(config, read_model_config(folder), folder, 512)
    worker.load()
    runner = worker._runner
    assert runner is not None
    losses = []
    for text in texts:
        running = Batch(worker.execute, config.kv_cache_block_size, 64)
        running.add("s", text, SamplingParams(temperature=0.0))
        with torch.inference_mode():
            logits = runner.model.logits(runner._forward(running.plan(chunk=len(text))))[:-1].float().cpu()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:]), reduction="none"))
    return math.exp(torch.cat(losses).mean().item())


async def test_perplexity_of_smaller_types() -> None:
    """On what the model itself says at temperature 1."""
    folder = locate_model("sage-builtin")
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=100, ignore_eos=True)
    texts = await answers(folder, prompts_of(5, 6, 7, 8), params)
    exact = perplexity(texts, dtype="float32")
    assert perplexity(texts, dtype="bfloat16") == pytest.approx(exact, rel=0.01)
    if torch.cuda.get_device_capability() >= (9, 0):
        assert perplexity(texts, dtype="bfloat16", quantization="fp8") == pytest.approx(exact, rel=0.06)


async def test_a_cache_that_does_not_fit_is_refused_and_the_next_engine_starts() -> None:
    folder = tiny_model("llama")
    with pytest.raises(EngineError):
        await answers(folder, [], GREEDY, kv_cache_num_blocks=1 << 30)
    assert await answers(folder, prompts_of(4), GREEDY) == [expected_tokens(folder, prompts_of(4)[0], 24)]

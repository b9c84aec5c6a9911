"""Every way to decode gives the same on several ranks as in one process (SPEC E3, E5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.helpers.tiny_models import tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol import Grammar, Response, SamplingParams

pytestmark = [pytest.mark.spec("E3", "E5"), pytest.mark.slow]
PROMPT = list(range(10, 40))
WAYS: dict[str, dict[str, Any]] = {
    "penalties": {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.3, "logprobs": 2},
    "grammar": {"temperature": 1.0, "seed": 1, "grammar": Grammar(kind="regex", text="[ab]{3}")},
    "beams": {"num_beams": 3, "n": 3},
    "contrastive": {"strategy": "contrastive"},
    "prompt": {"prompt_logprobs": 1},
    "drafts": {"n_speculative_tokens": 3},
    "answers": {"temperature": 1.0, "seed": 7, "n": 3},
}


async def decoded(**changes: Any) -> tuple[dict[str, Response], list[float]]:
    folder = str(tiny_model("llama"))
    config: dict[str, Any] = {"model_path": folder, "backend_type": "cpu", "dtype": "float32", "num_threads": 1}
    engine = LLMEngine(LLMEngineConfig(**config, **changes))
    await engine.start()
    try:
        params = [SamplingParams(max_tokens=20, **wishes) for wishes in WAYS.values()]
        answers = await asyncio.gather(*(engine.generate(PROMPT, sampling_params=each) for each in params))
        return dict(zip(WAYS, answers, strict=True)), (await engine.embed(["abc def"]))[0]
    finally:
        await engine.stop()


def essence(response: Response) -> tuple[list[int], list[list[int]], list[int]]:
    scored = [entry.token_id for entry in response.prompt_logprobs or []]
    return response.output_tokens, [choice.output_tokens for choice in response.choices], scored


@pytest.mark.parametrize(
    "split",
    [
        "tensor_parallel_size",
        pytest.param("pipeline_parallel_size", marks=pytest.mark.exhaustive),
    ],
)
async def test_two_ranks_decode_as_one(split: str) -> None:
    alone, vector = await decoded()
    split_up, other = await decoded(**{split: 2})
    for name, response in alone.items():
        assert essence(split_up[name]) == essence(response), name
    assert other == pytest.approx(vector, abs=1e-5)

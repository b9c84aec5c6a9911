"""Log-probabilities of prompts and pooled vectors are those of transformers, however a prompt is cut (SPEC E3, E7)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tests.helpers.decoding import Bench, new
from tests.helpers.searches import last_row
from tests.helpers.tiny_models import reference, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.decoding import BaseDecodingStrategy, GreedyStrategy
from sagellm_core.decoding.base import LogitBatch, Outcome
from sagellm_core.decoding.pooling import PooledVector
from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.text import Tokenizer
from sagellm_protocol import DecodingStrategy, SamplingParams, TokenLogprob

pytestmark = pytest.mark.spec("E3", "E7")
LIMITS: list[dict[str, Any]] = [
    {},
    {"max_num_batched_tokens": 7, "max_batch_size": 7},
    {"kv_cache_num_blocks": 14, "kv_cache_block_size": 8},
]


def prompts(count: int) -> list[list[int]]:
    draw = Random(count)
    return [[draw.randrange(5, 260) for _ in range(draw.randint(2, 80))] for _ in range(count)]


async def started(folder: Path, **changes: Any) -> LLMEngine:
    config: dict[str, Any] = {"model_path": str(folder), "backend_type": "cpu", "dtype": "float32", **changes}
    engine = LLMEngine(LLMEngineConfig(**config))
    await engine.start()
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("limits", LIMITS, ids=["whole", "chunked", "starved"])
async def test_every_prompt_token_but_the_first_is_scored_once(limits: dict[str, Any]) -> None:
    folder, asked = tiny_model("llama"), prompts(5)
    params = SamplingParams(max_tokens=4, prompt_logprobs=2, logprobs=1, ignore_eos=True)
    engine = await started(folder, **limits)
    try:
        for _ in range(2):  # the second time, the prompts' blocks are in the cache
            got = await asyncio.gather(*(engine.generate(prompt, sampling_params=params) for prompt in asked))
            for prompt, response in zip(asked, got, strict=True):
                check(folder, prompt, response.prompt_logprobs)
                assert response.logprobs is not None
                assert len(response.logprobs) == 4
    finally:
        await engine.stop()


def check(folder: Path, prompt: list[int], found: list[TokenLogprob] | None) -> None:
    with torch.inference_mode():
        wanted = reference(folder)(torch.tensor([prompt])).logits[0].log_softmax(-1)
    assert found is not None
    assert [entry.token_id for entry in found] == prompt[1:]
    for entry, row, token in zip(found, wanted, prompt[1:], strict=False):
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(2)
        assert list(entry.top) == best.indices.tolist()
        assert list(entry.top.values()) == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "cls", "last"])
@pytest.mark.parametrize("limits", LIMITS, ids=["whole", "chunked", "starved"])
async def test_vectors_are_pooled_states_at_length_one(kind: str, limits: dict[str, Any]) -> None:
    folder, texts = tiny_model("llama"), ["The quick brown fox", "多字节字符", "x", "SAGE runs pipelines " * 4]
    engine = await started(folder, pooling_strategy=kind, **limits)
    try:
        for _ in range(2):
            found = await engine.embed(texts)
            for text, vector in zip(texts, found, strict=True):
                states = last_row(folder, Tokenizer(folder).encode(text))[1]
                pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[kind]
                unit = torch.nn.functional.normalize(pooled, dim=0)
                assert vector == pytest.approx(unit.tolist(), abs=1e-4)
    finally:
        await engine.stop()


def test_a_vector_begins_anew_when_its_text_does() -> None:
    rows = torch.randn(5, 4)
    once, again = PooledVector("mean"), PooledVector("mean")
    once.add(rows, 0)
    again.add(rows[:3], 0)
    again.add(rows[:2], 0)
    again.add(rows[2:], 2)
    assert again.vector() == pytest.approx(once.vector(), abs=1e-6)


class SecondBest(BaseDecodingStrategy):
    """A strategy as somebody else might write it."""

    def __call__(self, batch: LogitBatch) -> list[Outcome]:
        ids = batch.logits.topk(2).indices[:, 1].tolist()
        for span, token in zip(batch.spans, ids, strict=True):
            span.state.accept(token)
        return [[SampledToken(token)] for token in ids]


def test_a_strategy_is_a_callable_that_can_be_put_in_place_of_another() -> None:
    bench = Bench(new("s"))
    assert isinstance(bench.decoder.strategies[DecodingStrategy.GREEDY], GreedyStrategy)
    bench.decoder.strategies[DecodingStrategy.GREEDY] = SecondBest()
    assert bench.tokens({"s": torch.tensor([[0.0, 3.0, 2.0]])}) == [[2]]

"""Drafts change how fast an answer comes, never which one: greedy, seeded or drawn (SPEC E3)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tests.helpers.decoding import Bench, chi_square, new, normalised
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig, ModelLoadError
from sagellm_protocol import Response, SamplingParams

pytestmark = pytest.mark.spec("E3")
SIZE = 6


def scripted(tokens: list[int], seed: int) -> torch.Tensor:
    """Logits of a made-up model that looks at the last two tokens only."""
    draw = torch.Generator().manual_seed(hash((seed, *tokens[-2:])) % 2**31)
    return torch.randn(SIZE, generator=draw) * 1.5


def plain(count: int, model: int, **params: Any) -> list[int]:
    bench, tokens = Bench(new("s", [0, 1], [5], **params)), [0, 1]
    for _ in range(count):
        tokens += bench.tokens({"s": scripted(tokens, model)[None]})[0]
    return tokens[2:]


def speculated(count: int, model: int, drafter: Random, **params: Any) -> tuple[list[int], int]:
    """The same answer by way of random drafts, and in how many steps."""
    bench, tokens, steps = Bench(new("s", [0, 1], [5], **params)), [0, 1], 0
    while len(tokens) < count + 2:
        drafts = [drafter.randrange(SIZE) for _ in range(drafter.randrange(4))]
        rows = [scripted(tokens + drafts[:ahead], model) for ahead in range(len(drafts) + 1)]
        tokens += bench.tokens({"s": torch.stack(rows)}, {"s": drafts})[0]
        steps += 1
    return tokens[2 : count + 2], steps


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.8, "top_k": 4},
        {"repetition_penalty": 1.4, "frequency_penalty": 0.4, "presence_penalty": 0.2},
        {"temperature": 1.2, "frequency_penalty": 1.0, "min_tokens": 20},
        {"logit_bias": {2: -50.0}, "logprobs": 2},
    ],
    ids=str,
)
def test_any_drafts_give_the_tokens_that_come_without(params: dict[str, Any]) -> None:
    total = 0
    for seed in range(8):
        wanted = plain(40, seed, seed=seed, **params)
        tokens, steps = speculated(40, seed, Random(seed), seed=seed, **params)
        assert tokens == wanted
        total += steps
    assert total < 8 * 40


def test_unseeded_tokens_after_drafts_follow_the_distribution() -> None:
    """The first token, whether the draft was kept or replaced, and the second after a kept one: chi-square."""
    first, second, logits = Counter[int](), Counter[int](), torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, 0.2])
    for _ in range(400):
        names = [f"s{index}" for index in range(50)]
        bench = Bench(*(new(name, temperature=1.0) for name in names))
        got = bench.tokens({name: torch.stack([logits, -logits]) for name in names}, {name: [0] for name in names})
        first.update(tokens[0] for tokens in got)
        second.update(tokens[1] for tokens in got if len(tokens) > 1)
    assert first.total() == 20_000
    assert second.total() == first[0]
    weights = [math.exp(value) for value in logits.tolist()]
    assert chi_square(first, normalised(weights)) < 25.7
    assert chi_square(second, normalised([1 / weight for weight in weights])) < 25.7


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[LLMEngine]:
    config: dict[str, Any] = {"model_path": str(folder), "backend_type": "cpu", "dtype": "float32", **changes}
    engine = LLMEngine(LLMEngineConfig(**config))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def answers(engine: LLMEngine, prompts: list[list[int]], **params: Any) -> list[Response]:
    import asyncio

    settled = SamplingParams(max_tokens=32, ignore_eos=True, **params)
    return list(await asyncio.gather(*(engine.generate(prompt, sampling_params=settled) for prompt in prompts)))


def prompts(count: int) -> list[list[int]]:
    draw = Random(count)
    return [[draw.randrange(5, 260) for _ in range(draw.randint(3, 50))] for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"kv_cache_num_blocks": 24, "kv_cache_block_size": 4}, {"max_batch_size": 2}])
async def test_a_draft_model_gives_the_tokens_of_transformers(limits: dict[str, Any]) -> None:
    """A draft model with other weights is mostly wrong, one with the same weights mostly right; starved caches too."""
    target, other = tiny_model("llama"), tiny_model("llama", seed=1, num_hidden_layers=1)
    asked = prompts(5)
    wanted = [expected_tokens(target, prompt, 32) for prompt in asked]
    for draft in (other, target):
        async with running(target, speculative_model=str(draft), num_speculative_tokens=3, **limits) as engine:
            for _ in range(2):  # the second time from cached prefixes
                got = await answers(engine, asked)
                assert [each.output_tokens for each in got] == wanted
            alone = (await answers(engine, asked[:1]))[0].metrics.spec_accept_rate
        assert alone > 0.9 if draft is target else alone < 0.9


@pytest.mark.slow
async def test_a_draft_model_does_not_change_what_a_seed_gives() -> None:
    target, other = tiny_model("llama"), tiny_model("llama", seed=1, num_hidden_layers=1)
    asked, params = prompts(3), {"temperature": 0.8, "top_p": 0.9, "seed": 5}
    async with running(target) as engine:
        wanted = [each.output_tokens for each in await answers(engine, asked, **params)]
    rates = []
    for draft in (other, target):
        async with running(target, speculative_model=str(draft), num_speculative_tokens=4) as engine:
            got = await answers(engine, asked, **params)
        assert [each.output_tokens for each in got] == wanted
        rates.append(sum(each.metrics.spec_accept_rate for each in got) / len(got))
    assert rates[0] < 0.6 < 0.9 < rates[1]


@pytest.mark.slow
async def test_looking_up_n_grams_gives_the_tokens_of_transformers() -> None:
    target = tiny_model("llama")
    asked = [prompt * 2 for prompt in prompts(4)]
    async with running(target, num_speculative_tokens=4) as engine:
        got = await answers(engine, asked)
    assert [each.output_tokens for each in got] == [expected_tokens(target, prompt, 32) for prompt in asked]


async def test_a_draft_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from shutil import copytree

    target = tiny_model("llama")
    other = copytree(target, tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace('"<|user|>"', '"<|you|>"').replace('"a":', '"a ":'), "utf-8")
    with pytest.raises(ModelLoadError, match=r"tokenizer"):
        async with running(target, speculative_model=str(other), num_speculative_tokens=2):
            pass

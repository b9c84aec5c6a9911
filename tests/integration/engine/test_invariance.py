"""Greedy output is token for token that of `transformers`, whatever the engine does to get there (SPEC E3 to E7).

One test over a matrix: families of models, where the steps run, how tight the cache is, how prompts are cut, who
guesses ahead. Every case answers alone and in a mixed batch, with prefixes that are in the cache already and without.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from tests.helpers.tiny_models import FALLBACK, OWN, expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.backends import get_provider
from sagellm_core.runtime import DistributedRuntime, PDLayout
from sagellm_protocol.sampling import SamplingParams

pytestmark = [pytest.mark.spec("E3", "E4", "E5", "E6", "E7"), pytest.mark.slow]

ROOMY, STARVED = 256, 16
WHOLE, CHUNKED = 512, 12
MAX_TOKENS = 28
SPLIT = ["gpt_neox", "granite", "olmo2", "phi", "phi3"]


@dataclass(slots=True, frozen=True)
class Case:
    """One way to run one family."""

    family: str
    place: str = "alone"  # alone, gpu, tp (two ranks), pp (two stages), tp-pp (both), pd (prefill and decode apart)
    blocks: int = ROOMY
    budget: int = WHOLE
    guess: str = "none"  # none, n-gram, draft (the model itself), stranger (another model's drafts)

    def __str__(self) -> str:
        cache = "starved" if self.blocks == STARVED else "roomy"
        steps = "chunked" if self.budget == CHUNKED else "whole"
        return f"{self.family}-{self.place}-{cache}-{steps}-{self.guess}"

    def config(self, folder: Path) -> LLMEngineConfig:
        draft = {"draft": folder, "stranger": tiny_model(self.family, seed=1)}.get(self.guess)
        return LLMEngineConfig(
            model_path=str(folder),
            backend_type="cuda" if self.place == "gpu" else "cpu",
            dtype="float32",
            num_threads=1,
            max_batch_size=8,
            kv_cache_block_size=8,
            kv_cache_num_blocks=self.blocks,
            max_num_batched_tokens=self.budget,
            tensor_parallel_size=2 if self.place in ("tp", "tp-pp") else 1,
            pipeline_parallel_size=2 if self.place in ("pp", "tp-pp") else 1,
            num_speculative_tokens=0 if self.guess == "none" else 3,
            speculative_model=None if draft is None else str(draft),
        )


def quick() -> Iterator[Case]:
    """A case or two for everything: what `make test` runs."""
    for family in OWN:
        yield Case(family, blocks=STARVED, budget=CHUNKED)
    yield Case("llama")
    yield Case("llama", guess="n-gram")
    yield Case("qwen2", guess="draft", blocks=STARVED)
    yield Case("phi3", blocks=STARVED, budget=CHUNKED)
    yield Case("gpt_neox", guess="n-gram")
    yield Case("qwen3", place="tp", budget=CHUNKED)
    yield Case("mistral", place="pp", guess="n-gram")
    yield Case("llama", place="pd", budget=CHUNKED)


def everything() -> Iterator[Case]:
    """In one process every combination; across processes ten families, and every combination for one."""
    for family, blocks, budget in product([*OWN, *FALLBACK], (ROOMY, STARVED), (WHOLE, CHUNKED)):
        for guess in ("none", "n-gram", "draft"):
            yield Case(family, "alone", blocks, budget, guess)
    for blocks, budget in product((ROOMY, STARVED), (WHOLE, CHUNKED)):
        yield Case("llama", "alone", blocks, budget, "stranger")
    for family, place in product([*OWN, *SPLIT], ("tp", "pp", "pd")):
        yield Case(family, place, STARVED, CHUNKED)
    yield Case("qwen2", "tp-pp", STARVED, CHUNKED, "n-gram")
    yield Case("phi3", "tp-pp", STARVED, CHUNKED, "draft")
    for place, guess in product(("tp", "pp", "pd"), ("n-gram", "draft", "stranger")):
        yield Case("llama", place, STARVED, WHOLE, guess)


def on_a_gpu() -> Iterator[Case]:
    """Where steps are recorded and replayed."""
    for family in (*OWN, "phi3"):
        yield Case(family, "gpu")
        yield Case(family, "gpu", STARVED, CHUNKED, "n-gram")


def cases() -> list[object]:
    first = list(quick())
    rest = [case for case in everything() if case not in first]
    long = [pytest.param(case, id=str(case), marks=pytest.mark.exhaustive) for case in rest]
    gpu = [pytest.param(case, id=str(case), marks=pytest.mark.gpu) for case in on_a_gpu()]
    return [*(pytest.param(case, id=str(case)) for case in first), *long, *gpu]


def prompts() -> list[list[int]]:
    """Short, long, one that repeats itself, and two that begin alike."""
    draw = random.Random(7)

    def some(count: int) -> list[int]:
        return [draw.randrange(5, 260) for _ in range(count)]

    shared = some(30)
    return [some(3), shared + some(3), shared + some(12), some(60), some(6) * 5, some(8), some(12)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", cases())
async def test_the_tokens_are_those_of_transformers(case: Case) -> None:
    if case.place == "gpu" and not get_provider("cuda").is_available():
        pytest.skip("needs a CUDA device")
    folder = tiny_model(case.family)
    wanted = [expected_tokens(folder, prompt, MAX_TOKENS) for prompt in prompts()]
    config = case.config(folder)
    apart = PDLayout(prefill_threshold_tokens=1)
    engine = DistributedRuntime(config, apart) if case.place == "pd" else LLMEngine(config)
    await engine.start()
    try:
        alone = [await answer(engine, prompt) for prompt in prompts()[:2]]
        mixed = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts()))
        assert alone == wanted[:2]
        assert mixed == wanted
        await counted(engine, "prefix_hit_ratio", 0)
        if case.blocks == STARVED and case.place != "pd":  # where prompts are spread over two caches
            await counted(engine, "preemptions_total", 0)
        if case.place == "pd":
            await counted(engine, "kv_transfer_count", 0)
        if case.guess != "none":
            await counted(engine, "draft_tokens_total", 0)
        if case.guess == "draft" and case.place != "pd":  # whose draft model has not read the prompt
            await counted(engine, "spec_accept_rate", 0.5)
    finally:
        await engine.stop()


async def answer(engine: LLMEngine, prompt: list[int]) -> list[int]:
    params = SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True)
    return (await engine.generate(prompt, sampling_params=params)).output_tokens


async def counted(engine: LLMEngine, name: str, least: float) -> None:
    """The case really happened: a metric exceeds `least`. Nodes report theirs a little later."""
    for _ in range(100):
        if engine.get_metrics()[name] > least:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{name} is {engine.get_metrics()[name]}")

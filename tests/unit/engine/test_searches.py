"""Beam and contrastive search: the engine's answers are those of a plain reference, and of transformers (SPEC E3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.decoding import Bench, new
from tests.helpers.searches import beam_search, contrastive_search, transformers_beams
from tests.helpers.tiny_models import EOS, expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.decoding.history import HiddenHistory
from sagellm_protocol import Grammar, Response, SamplingParams

pytestmark = pytest.mark.spec("E3")
LOGITS = torch.tensor([[0.0, 3.0, 2.0, 1.0, -1.0, -2.0]])


def test_a_beam_offers_its_likeliest_continuations() -> None:
    bench = Bench(
        new("two", [0], strategy="beam_search", num_beams=2),
        new("many stops", [0], [0, 1, 2], strategy="beam_search", num_beams=2),
        new("biased", [0], strategy="beam_search", num_beams=2, logit_bias={1: -100.0}),
        new("early", [0], [1], strategy="beam_search", num_beams=2, min_tokens=1),
    )
    found = bench.step(dict.fromkeys(["two", "many stops", "biased", "early"], LOGITS)).candidates
    logprobs = LOGITS[0].log_softmax(-1).tolist()
    assert found["two"].token_ids == [1, 2, 3, 0]
    assert found["two"].logprobs == pytest.approx([logprobs[token] for token in (1, 2, 3, 0)])
    assert found["many stops"].token_ids == [1, 2, 3, 0, 4]
    assert found["biased"].token_ids == [2, 3, 0, 4]
    assert found["early"].token_ids == [2, 3, 0, 4]


def test_a_search_without_usable_numbers_fails_its_row_alone() -> None:
    bench = Bench(new("broken", num_beams=2, strategy="beam_search"), new("whole", num_beams=2, strategy="beam_search"))
    output = bench.step({"broken": torch.full((1, 6), float("nan")), "whole": LOGITS})
    assert [token.token_id for token in output.tokens["broken"]] == [-1]
    assert output.candidates["whole"].token_ids == [1, 2, 3, 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_histories_that_fork_and_go_back_hold_what_was_put_in(data: st.DataObject) -> None:
    """Against plain lists: any member may fork, append, or be computed again from an earlier token."""
    noise = torch.Generator().manual_seed(0)
    members: list[tuple[HiddenHistory, list[torch.Tensor]]] = [(HiddenHistory(), [])]
    for _ in range(data.draw(st.integers(1, 25))):
        history, rows = members[data.draw(st.integers(0, len(members) - 1))]
        if data.draw(st.booleans()) and rows:
            members.append((history.fork(), list(rows)))
            continue
        position = data.draw(st.sampled_from([len(rows), 0, len(rows) // 2]))
        fresh = torch.randn(data.draw(st.integers(1, 4)), 3, generator=noise)
        history.put(fresh, position)
        rows[position:] = list(fresh)
        unit = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
        wanted = float((unit[:-1] @ unit[-1]).max()) if len(rows) > 1 else 0.0
        assert len(history) == len(rows)
        assert history.similarity() == pytest.approx(wanted, abs=1e-5)


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[LLMEngine]:
    config: dict[str, Any] = {"model_path": str(folder), "backend_type": "cpu", "dtype": "float32", **changes}
    engine = LLMEngine(LLMEngineConfig(**config))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def prompts(count: int) -> list[list[int]]:
    draw = Random(count)
    return [[draw.randrange(5, 260) for _ in range(draw.randint(3, 40))] for _ in range(count)]


def answers(response: Response) -> list[tuple[list[int], float]]:
    """Tokens and scores, best first; an answer that stopped has its stop token."""
    return [(choice.output_tokens, choice.score) for choice in response.choices]


def agree(found: list[tuple[list[int], float]], wanted: list[tuple[list[int], float]]) -> None:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-4)


STARVED = {"kv_cache_num_blocks": 30, "kv_cache_block_size": 4}
BEAMS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 2, "length_penalty": 0.0},
    {"num_beams": 5, "length_penalty": -0.5, "early_stopping": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", BEAMS, ids=str)
async def test_beams_are_those_of_the_reference_and_of_transformers(options: dict[str, Any]) -> None:
    """Alone, and all prompts at once beside a greedy request."""
    folder, asked, width = tiny_model("llama"), prompts(3), options["num_beams"]
    params = SamplingParams(max_tokens=12, n=width, **options)
    wanted = [beam_search(folder, prompt, max_tokens=12, **options) for prompt in asked]
    for prompt, hypotheses in zip(asked, wanted, strict=True):
        theirs = transformers_beams(folder, prompt, max_new_tokens=12, num_return_sequences=width, **options)
        agree(hypotheses, theirs)
    async with running(folder) as engine:
        agree(answers(await engine.generate(asked[0], sampling_params=params)), wanted[0])
        plain = engine.generate(asked[0], sampling_params=SamplingParams(max_tokens=12, ignore_eos=True))
        together = await asyncio.gather(plain, *(engine.generate(each, sampling_params=params) for each in asked))
    assert together[0].output_tokens == expected_tokens(folder, asked[0], 12)
    for response, hypotheses in zip(together[1:], wanted, strict=True):
        agree(answers(response), hypotheses)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{"kv_cache_num_blocks": 30, "kv_cache_block_size": 4}, {"max_num_batched_tokens": 9}]
)
async def test_beams_under_pressure_are_the_same(limits: dict[str, Any]) -> None:
    """A cache that cannot hold all beams of all requests, prompts in pieces: members are computed again and again."""
    folder, asked = tiny_model("llama"), prompts(4)
    params = SamplingParams(max_tokens=16, num_beams=3, n=3)
    wanted = [beam_search(folder, prompt, max_tokens=16, num_beams=3) for prompt in asked]
    async with running(folder, max_batch_size=6, **limits) as engine:
        got = await asyncio.gather(*(engine.generate(each, sampling_params=params) for each in asked))
    for response, hypotheses in zip(got, wanted, strict=True):
        agree(answers(response), hypotheses)


@pytest.mark.slow
async def test_penalties_on_beams_are_those_of_transformers() -> None:
    folder, prompt = tiny_model("llama"), prompts(1)[0]
    options: dict[str, Any] = {"num_beams": 3, "repetition_penalty": 1.5}
    theirs = transformers_beams(folder, prompt, max_new_tokens=10, num_return_sequences=3, **options)
    async with running(folder) as engine:
        response = await engine.generate(prompt, sampling_params=SamplingParams(max_tokens=10, n=3, **options))
    agree(answers(response), theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (2, 0.9), (6, 0.1)])
async def test_contrastive_search_is_that_of_the_reference(k: int, alpha: float) -> None:
    folder, asked = tiny_model("llama"), prompts(3)
    wanted = [contrastive_search(folder, prompt, k=k, alpha=alpha, max_tokens=14) for prompt in asked]
    params = SamplingParams(strategy="contrastive", top_k=k, penalty_alpha=alpha, max_tokens=14)  # type: ignore[arg-type]
    limits: list[dict[str, Any]] = [
        {},
        {"kv_cache_num_blocks": 60, "kv_cache_block_size": 4, "max_num_batched_tokens": 9, "max_batch_size": 8},
    ]
    for each in limits:
        async with running(folder, **each) as engine:
            got = await asyncio.gather(*(engine.generate(prompt, sampling_params=params) for prompt in asked))
        assert [response.output_tokens for response in got] == wanted


@pytest.mark.slow
async def test_searches_keep_to_a_grammar() -> None:
    folder = tiny_model("llama")
    grammar = Grammar(kind="regex", text="[ab]{3}|c")
    async with running(folder) as engine:
        beams = await engine.generate("The", sampling_params=SamplingParams(num_beams=3, n=3, grammar=grammar))
        contrastive = SamplingParams(strategy="contrastive", grammar=grammar)  # type: ignore[arg-type]
        one = await engine.generate("The", sampling_params=contrastive)
    for text in [*(choice.output_text for choice in beams.choices), one.output_text]:
        assert (set(text) <= set("ab") and len(text) == 3) or text == "c"
    assert len({choice.output_text for choice in beams.choices}) == 3
    assert all(choice.output_tokens[-1] == EOS for choice in beams.choices)

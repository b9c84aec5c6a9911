"""Draws follow their distributions, whole batches draw as single rows do, and rare wishes do not leak (SPEC E2, E3)."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.decoding import Bench, chi_square, new, normalised

from sagellm_core.decoding.draw import draw
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E2", "E3")
DRAWS = 20_000
SIZE = 12
# 11 degrees of freedom at most: 31.3 is passed by one in a thousand; seeds are fixed.
CRITICAL = 31.3
LOGITS = torch.tensor([2.0, 1.4, 1.0, 0.5, 0.2, 0.0, -0.3, -0.5, -1.0, -1.5, -2.0, -3.0])


def reference(logits: list[float], params: SamplingParams) -> list[float]:
    """The distribution by the textbook, one token after the other."""
    weights = normalised([math.exp(value / params.temperature) for value in logits])
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    if params.top_k:
        order = order[: params.top_k]
    total = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        share = weights[token] / total
        if reached >= params.top_p or share < params.min_p * weights[order[0]] / total:
            break
        kept.append(token)
        reached += share
    return normalised([weights[token] if token in kept else 0.0 for token in range(len(weights))])


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 5},
    {"top_p": 0.75},
    {"min_p": 0.2},
    {"top_k": 8, "top_p": 0.9, "min_p": 0.05, "temperature": 1.3},
    {"top_k": 1000, "top_p": 0.5},
]


@pytest.mark.parametrize(
    ("params", "size"), [*((params, SIZE) for params in FILTERS), ({}, 1200), (FILTERS[6], 1200)], ids=str
)
def test_twenty_thousand_draws_fit_the_distribution(params: dict[str, Any], size: int) -> None:
    """A large vocabulary, most of which cannot come, takes the ways of large vocabularies."""
    settled = SamplingParams(**{"temperature": 1.0, **params})
    logits = torch.full((size,), -200.0)
    logits[:: size // SIZE][:SIZE] = LOGITS
    uniforms = Random(len(str(params)) + size)
    drawn: Counter[int] = Counter()
    for _ in range(20):
        count = DRAWS // 20
        ids = draw(logits.expand(count, -1), [settled] * count, [uniforms.random() for _ in range(count)])
        drawn.update((ids // (size // SIZE)).tolist())
    assert chi_square(drawn, reference(LOGITS.tolist(), settled)) < CRITICAL


def test_a_nucleus_deeper_than_the_shallow_sort() -> None:
    """With 4,000 equal tokens top-p 0.5 keeps 2,000 of them: far more than are looked at first."""
    params = SamplingParams(temperature=1.0, top_p=0.5)
    uniforms = Random(3)
    ids = draw(torch.zeros(400, 4000), [params] * 400, [uniforms.random() for _ in range(400)])
    assert 300 < len(set(ids.tolist())) <= 400


def test_the_ends_of_the_interval_draw_tokens_that_can_come() -> None:
    logits = torch.tensor([[-math.inf, 0.0, 1.0, -math.inf]]).repeat(2, 1)
    wide = torch.nn.functional.pad(logits, (600, 1400), value=-math.inf)
    ends = [0.0, math.nextafter(1.0, 0.0)]
    for filters in ({}, {"top_p": 0.99}, {"top_k": 2}):
        params = [SamplingParams(temperature=1.0, **filters)] * 2
        assert set(draw(logits, params, ends).tolist()) <= {1, 2}
        assert set(draw(wide, params, ends).tolist()) <= {601, 602}


WISHES = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "top_k": st.sampled_from([0, 1, 3]),
        "top_p": st.sampled_from([0.3, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.1]),
        "repetition_penalty": st.sampled_from([0.8, 1.0, 1.5]),
        "presence_penalty": st.sampled_from([0.0, 1.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.5]),
        "logit_bias": st.sampled_from([{}, {3: 2.0, 5: -100.0}]),
        "min_tokens": st.sampled_from([0, 2]),
        "logprobs": st.sampled_from([None, 0, 3]),
        "seed": st.integers(0, 5),
    },
)


@settings(max_examples=30, deadline=None)
@given(wishes=st.lists(WISHES, min_size=1, max_size=6), noise=st.integers(0, 1000))
def test_a_batch_gives_every_row_what_it_gets_alone(wishes: list[dict[str, Any]], noise: int) -> None:
    """Tokens, log-probabilities and the states that they leave, over four steps; unseeded rows get a seed."""
    wishes = [{"seed": 9, **each} for each in wishes]
    names = [f"s{index}" for index in range(len(wishes))]
    sequences = [new(name, [1, 2, 2], [0, 4], **each) for name, each in zip(names, wishes, strict=True)]
    together, apart = Bench(*sequences), {each.seq_id: Bench(each) for each in sequences}
    source = torch.Generator().manual_seed(noise)
    for _ in range(4):
        logits = {name: torch.randn(1, 40, generator=source) * 2 for name in names}
        batch = together.step(logits).tokens
        for name in names:
            assert batch[name] == apart[name].step({name: logits[name]}).tokens[name]


def test_before_min_tokens_nothing_ends_the_answer() -> None:
    sequence = Bench(new("s", stop_ids=[0, 2], min_tokens=2))
    logits = {"s": torch.tensor([[5.0, 1.0, 4.0, 2.0]])}
    assert [sequence.tokens(logits)[0][0] for _ in range(3)] == [3, 3, 0]


def test_a_bias_can_force_and_forbid() -> None:
    logits = {"up": torch.zeros(1, 6), "down": torch.tensor([[9.0, 8.0, 0.0, 0.0, 0.0, 0.0]])}
    bench = Bench(new("up", logit_bias={4: 50.0}), new("down", logit_bias={0: -100.0}))
    assert bench.tokens(logits) == [[4], [1]]


def test_logprobs_are_those_of_the_model_whatever_is_done_to_the_scores() -> None:
    params: dict[str, Any] = {"temperature": 2.0, "top_k": 2, "logit_bias": {1: 30.0}, "logprobs": 2, "seed": 1}
    token = Bench(new("s", **params)).step({"s": LOGITS[None]}).tokens["s"][0]
    expected = LOGITS.log_softmax(-1)
    assert token.token_id == 1
    assert token.logprob == pytest.approx(float(expected[1]), abs=1e-5)
    assert token.top == pytest.approx({0: float(expected[0]), 1: float(expected[1])}, abs=1e-5)


def test_answers_to_one_request_draw_from_streams_of_their_own() -> None:
    def drawn(index: int) -> list[int]:
        sequence = new("s", temperature=3.0, seed=4)
        bench = Bench(type(sequence)(sequence.seq_id, [], sequence.sampling, index=index))
        return [bench.tokens({"s": LOGITS[None]})[0][0] for _ in range(40)]

    assert drawn(0) == drawn(0)
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(index)) for index in range(4)}) == 4


def test_a_sequence_that_moves_to_another_worker_goes_on_as_it_would_have() -> None:
    params: dict[str, Any] = {"temperature": 1.0, "frequency_penalty": 1.0, "seed": 8}
    stays = Bench(new("s", [1], **params))
    tokens = [stays.tokens({"s": LOGITS[None]})[0][0] for _ in range(30)]
    moved = new("s", [1], **params)
    goes_on = Bench(type(moved)("s", [1], moved.sampling, output=tokens[:12]))
    assert [goes_on.tokens({"s": LOGITS[None]})[0][0] for _ in range(18)] == tokens[12:]

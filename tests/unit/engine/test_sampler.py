"""Choosing tokens: distributions, penalties, seeds that do not depend on the batch (SPEC E2, E3)."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from tests.helpers.decoding import chi_square, normalised

from sagellm_core.decoding.decoder import StepDecoder
from sagellm_core.decoding.state import SequenceState
from sagellm_core.engine_core.plan import BatchType, NewSequence, SampledToken, SchedulerOutput
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E2", "E3")
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])


def state(prompt: list[int] | None = None, *, stop_ids: list[int] | None = None, **params: Any) -> SequenceState:
    return SequenceState.of(NewSequence("s", prompt or [], SamplingParams(**params), stop_ids=stop_ids or []))


def sample(logits: torch.Tensor, states: list[SequenceState]) -> list[SampledToken]:
    """One decoding step of these sequences; the rows of logits stand for the hidden states too."""
    decoder, rows = StepDecoder(), len(states)
    names = [str(row) for row in range(rows)]
    decoder.states = dict(zip(names, states, strict=True))
    ones, none = [1] * rows, [0] * rows
    tables = [[0]] * rows
    plan = SchedulerOutput(1, BatchType.DECODE, names, none, none, none, ones, ones, tables, [True] * rows)
    tokens = decoder.decode(plan, logits, lambda hidden: hidden).tokens
    return [tokens[name][0] for name in names]


def draws(count: int, logits: torch.Tensor = LOGITS, **params: Any) -> Counter[int]:
    one = state(seed=1, **params)
    return Counter(sample(logits[None], [one])[0].token_id for _ in range(count))


SOFTMAX = normalised([math.exp(value) for value in LOGITS.tolist()])


def test_draws_follow_the_distribution() -> None:
    """Chi-square at four degrees of freedom: below 18.5 in 999 of 1,000 cases; the seed is fixed."""
    assert chi_square(draws(3000, temperature=1.0, top_k=4), normalised([*SOFTMAX[:4], 0])) < 18.5


def test_greedy_is_the_argmax() -> None:
    assert sample(LOGITS[None], [state()])[0].token_id == 0


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
def test_a_temperature_near_zero_is_the_argmax(temperature: float) -> None:
    assert set(draws(20, 50 * LOGITS.flip(0), temperature=temperature)) == {4}
    assert set(draws(20, LOGITS, temperature=temperature, logit_bias={2: 1e30, 3: -1e30})) == {2}


def test_a_seed_gives_the_same_draws_whatever_else_is_in_the_batch() -> None:
    alone, beside = state(seed=7, temperature=1.0), state(seed=7, temperature=1.0)
    others = [state(seed=1, temperature=2.0), state(), state(temperature=0.7, top_p=0.5)]
    for _ in range(50):
        single = sample(LOGITS[None], [alone])[0].token_id
        batch = sample(LOGITS.expand(4, -1), [*others[:2], beside, others[2]])[2].token_id
        assert single == batch


def test_without_a_seed_requests_differ() -> None:
    def run() -> list[int]:
        one = state(temperature=5.0)
        return [sample(LOGITS[None], [one])[0].token_id for _ in range(60)]

    assert run() != run()


def test_repetition_penalty_covers_prompt_and_output_and_both_signs() -> None:
    logits = torch.tensor([[1.0, 0.9, -0.1, -0.2]])
    assert sample(logits, [state(prompt=[0], repetition_penalty=2.0)])[0].token_id == 1
    negative = torch.tensor([[-0.1, -0.15]])
    assert sample(negative, [state(prompt=[0], repetition_penalty=2.0)])[0].token_id == 1


def test_presence_and_frequency_count_the_output_only() -> None:
    one = state(prompt=[0], presence_penalty=0.6)
    logits = torch.tensor([[1.0, 0.5]])
    assert [sample(logits, [one])[0].token_id for _ in range(3)] == [0, 1, 0]
    often = state(frequency_penalty=0.3)
    assert [sample(logits, [often])[0].token_id for _ in range(4)] == [0, 0, 1, 0]


def test_penalties_leave_the_logits_of_others_alone() -> None:
    logits = LOGITS.expand(2, -1).clone()
    sample(logits, [state(prompt=[0], repetition_penalty=5.0), state()])
    assert torch.equal(logits, LOGITS.expand(2, -1))


def test_logprobs_are_of_the_model_and_the_likeliest_first() -> None:
    token = sample(LOGITS[None], [state(logprobs=2)])[0]
    assert token.logprob == pytest.approx(math.log(SOFTMAX[0]), abs=1e-5)
    assert token.top is not None
    assert list(token.top) == [0, 1]


def test_a_row_of_nan_gives_no_token_and_spares_its_neighbours() -> None:
    logits = torch.stack([torch.full((5,), float("nan")), LOGITS])
    assert [token.token_id for token in sample(logits, [state(), state()])] == [-1, 0]


def test_masked_tokens_are_never_drawn() -> None:
    logits = torch.tensor([0.0, float("-inf"), 0.0, float("-inf")])
    assert set(draws(300, logits, temperature=1.0)) == {0, 2}

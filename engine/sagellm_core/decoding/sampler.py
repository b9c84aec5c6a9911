"""Choosing the next token of every row from its logits.

Greedy rows are one argmax for the whole batch; only rows that ask for more pay for more. A row draws from its own
random stream, one uniform number a token, so its output does not depend on what else is in the batch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import NewSequence, SampledToken
from sagellm_protocol.sampling import SamplingParams


@dataclass(slots=True)
class SamplingState:
    """What sampling remembers of one sequence: its parameters, its tokens so far, its random stream."""

    params: SamplingParams
    prompt: frozenset[int]
    counts: dict[int, int] = field(default_factory=dict)
    uniform: random.Random = field(default_factory=random.Random)

    @classmethod
    def of(cls, new: NewSequence) -> SamplingState:
        return cls(new.sampling, frozenset(new.prompt), uniform=random.Random(new.sampling.seed))

    @property
    def penalised(self) -> bool:
        params = self.params
        return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0

    @property
    def plain(self) -> bool:
        """Nothing but the argmax is needed."""
        return self.params.temperature == 0.0 and self.params.logprobs is None and not self.penalised


def sample(logits: Tensor, states: list[SamplingState]) -> list[SampledToken]:
    """One token a row of logits (rows, vocabulary). A row of NaN gives token -1."""
    best, argmax = logits.max(dim=-1)
    ids: list[int] = argmax.tolist()
    broken: list[bool] = best.isnan().tolist()
    tokens: list[SampledToken] = []
    for row, state in enumerate(states):
        if broken[row]:
            tokens.append(SampledToken(-1))
            continue
        token = SampledToken(ids[row]) if state.plain else _sample_row(logits[row].float(), state)
        state.counts[token.token_id] = state.counts.get(token.token_id, 0) + 1
        tokens.append(token)
    return tokens


def _sample_row(logits: Tensor, state: SamplingState) -> SampledToken:
    params = state.params
    scores = _penalise(logits.clone(), state) if state.penalised else logits
    if params.temperature == 0.0:
        chosen = int(scores.argmax())
    else:
        chosen = _draw(scores / params.temperature, params, state.uniform.random())
    if params.logprobs is None:
        return SampledToken(chosen)
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(min(params.logprobs, logits.numel()))
    top = dict(zip(ids.tolist(), values.tolist(), strict=True))
    return SampledToken(chosen, float(logprobs[chosen]), top)


def _penalise(logits: Tensor, state: SamplingState) -> Tensor:
    """Repetition (Keskar et al. 2019; prompt and output), presence and frequency (OpenAI; output only)."""
    params = state.params
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(state.prompt | state.counts.keys()), device=logits.device)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if state.counts and (params.presence_penalty or params.frequency_penalty):
        ids = torch.tensor(list(state.counts), device=logits.device)
        counts = torch.tensor(list(state.counts.values()), dtype=logits.dtype, device=logits.device)
        logits[ids] -= params.presence_penalty + params.frequency_penalty * counts
    return logits


def _draw(scores: Tensor, params: SamplingParams, uniform: float) -> int:
    """Invert the cumulative distribution at `uniform`, after top-k, top-p and min-p have cut its tail."""
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return _invert(scores.softmax(-1), uniform)
    count = min(params.top_k, scores.numel()) if params.top_k else scores.numel()
    values, ids = scores.topk(count)
    probabilities = values.softmax(-1)
    if params.top_p < 1.0:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= params.top_p, 0.0)
    if params.min_p > 0.0:
        probabilities = probabilities.masked_fill(probabilities < params.min_p * probabilities[0], 0.0)
    return int(ids[_invert(probabilities, uniform)])


def _invert(probabilities: Tensor, uniform: float) -> int:
    cumulative = probabilities.double().cumsum(-1)
    index = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    last = int(probabilities.nonzero()[-1])
    return min(index, last)

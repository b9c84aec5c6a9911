"""Log-probabilities of chosen tokens and of prompts, as the model gave them (before penalties and temperature)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import SampledToken

_ROWS = 64
"""Rows of a prompt that are turned into logits at once: a vocabulary of 150,000 makes 39 MB of them."""


def top_logprobs(
    logits: Tensor, rows: Sequence[int], chosen: Sequence[int], counts: Sequence[int]
) -> list[SampledToken]:
    """For each of these rows its chosen token with log-probability and the `count` likeliest, best first.

    `chosen` has a token for every row of logits (rows, vocabulary); `counts` one number for each entry of `rows`.
    """
    picked = logits if len(rows) == len(logits) else logits[torch.tensor(rows, device=logits.device)]
    return _describe(picked, [chosen[at] for at in rows], counts)


def prompt_logprobs(
    hidden: Tensor, to_logits: Callable[[Tensor], Tensor], targets: Sequence[int], count: int
) -> list[SampledToken]:
    """Each of `targets` with its log-probability after the row of hidden states (tokens, hidden) beside it."""
    scored: list[SampledToken] = []
    for first in range(0, len(targets), _ROWS):
        part = targets[first : first + _ROWS]
        scored += _describe(to_logits(hidden[first : first + len(part)]), part, [count] * len(part))
    return scored


def _describe(logits: Tensor, chosen: Sequence[int], counts: Sequence[int]) -> list[SampledToken]:
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(chosen, device=logits.device).clamp_(min=0)[:, None]).squeeze(1).tolist()
    values, ids = logprobs.topk(min(max(counts), logits.shape[-1]))
    return [
        SampledToken(token, logprob, dict(zip(ids[:count], values[:count], strict=True)))
        for token, logprob, ids, values, count in zip(chosen, own, ids.tolist(), values.tolist(), counts, strict=True)
    ]

"""Speculative decoding: tokens that somebody proposed are checked by the model, all in one step.

Every row chooses its token exactly as it would without drafts, with the same random number; drafts are kept while they
equal what was chosen. For a proposal without a choice (an n-gram, a greedy draft model) this is the rejection sampling
of Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding": a draft x is kept with
probability p(x), and what replaces it follows p without x. A draft model that samples draws with the numbers that its
target will draw with (Daliri et al. 2025, "Coupling without Communication and Drafter-Invariant Speculative Decoding"),
so its drafts agree often, and here too the output does not depend on the drafts at all: not its distribution, and for a
given seed not a single token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sagellm_core.decoding.adjust import Row
from sagellm_core.decoding.base import TokenStrategy
from sagellm_core.decoding.greedy import GreedyStrategy
from sagellm_core.decoding.sampling import SamplingStrategy


class SpeculativeStrategy(TokenStrategy):
    """Verifies drafts of greedy and of sampling sequences together."""

    def __init__(self) -> None:
        self._greedy = GreedyStrategy()
        self._sampling = SamplingStrategy()

    def choose(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        drawn = [at for at, row in enumerate(rows) if row.state.params.temperature > 0]
        if len(drawn) == len(rows):
            return self._sampling.choose(scores, rows)
        chosen = self._greedy.choose(scores, rows)
        if drawn:
            at = torch.tensor(drawn, device=scores.device)
            chosen[at] = self._sampling.choose(scores[at], [rows[each] for each in drawn])
        return chosen

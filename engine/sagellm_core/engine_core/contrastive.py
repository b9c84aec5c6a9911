"""Contrastive search (Su et al. 2022, "A Contrastive Framework for Neural Text Generation").

Each of the k likeliest next tokens is computed by a member of its own; the token stays whose

    (1 - alpha) * probability - alpha * similarity

is largest, where similarity is the largest cosine of the token's hidden state with those of all tokens before it.
"""

from __future__ import annotations

from math import exp

from sagellm_core.engine_core.plan import Candidates, SampledToken
from sagellm_core.engine_core.search import Branch, Turn


class ContrastiveSearch:
    """One answer, of which one token becomes certain every step (from the second on)."""

    def __init__(self, k: int, alpha: float, max_tokens: int, stop_ids: frozenset[int]) -> None:
        self.width = k
        self._alpha = alpha
        self._left = max_tokens
        self._stop_ids = stop_ids
        self._tried: list[SampledToken] = []

    def advance(self, candidates: list[Candidates]) -> Turn:
        """Choose among the tokens that the members tried; its own candidates are tried next."""
        if not self._tried:
            return self._try(0, candidates[0], [])
        scores = [
            (1 - self._alpha) * exp(token.logprob or 0.0) - self._alpha * result.similarity
            for token, result in zip(self._tried, candidates, strict=True)
        ]
        best = scores.index(max(scores))
        chosen = self._tried[best]
        self._left -= 1
        if chosen.token_id in self._stop_ids:
            return Turn(chosen=[chosen], finish_reason="stop")
        if not self._left:
            return Turn(chosen=[chosen], finish_reason="length")
        return self._try(best, candidates[best], [chosen])

    def _try(self, member: int, offered: Candidates, chosen: list[SampledToken]) -> Turn:
        pairs = zip(offered.token_ids[: self.width], offered.logprobs, strict=False)
        self._tried = [SampledToken(token, logprob) for token, logprob in pairs]
        return Turn([Branch(member, token.token_id) for token in self._tried], chosen)

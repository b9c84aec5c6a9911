"""Contrastive search (Su et al. 2022, "A Contrastive Framework for Neural Text Generation"), the worker's part.

Every row is one candidate of its request that has just been computed: how much its hidden state repeats the tokens
before it, and the `top_k` likeliest tokens that could follow it. The scheduler's side weighs the candidates.
"""

from __future__ import annotations

from sagellm_core.decoding.base import BROKEN, BaseDecodingStrategy, LogitBatch, Outcome
from sagellm_core.decoding.beam_search import likeliest


class ContrastiveStrategy(BaseDecodingStrategy):
    """Candidates with log-probabilities after penalties and bans, and the row's similarity to its context."""

    def __call__(self, batch: LogitBatch) -> list[Outcome]:
        logprobs = batch.scores(batch.rows()).log_softmax(-1)
        widths = [max(span.state.params.top_k, 1) for span in batch.spans]
        values, ids = logprobs.topk(min(max(widths), logprobs.shape[-1]))
        found = zip(batch.spans, ids.tolist(), values.tolist(), widths, batch.unusable().tolist(), strict=True)
        outcomes: list[Outcome] = []
        for span, tokens, logs, width, broken in found:
            history = span.state.history
            assert history is not None, "a contrastive sequence keeps its hidden states"
            outcomes.append(BROKEN if broken else likeliest(tokens, logs, width, history.similarity()))
        return outcomes

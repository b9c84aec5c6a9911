"""What every decoding strategy is: a call from rows of logits to what the rows' sequences get in this step.

A new strategy is a file with a subclass of `BaseDecodingStrategy`, a name in `DecodingStrategy` and a line in
`decoding/decoder.py`; what it has to remember of a sequence stands in `SequenceState`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sagellm_core.decoding.adjust import Row, adjust
from sagellm_core.decoding.logprobs import top_logprobs
from sagellm_core.decoding.state import SequenceState
from sagellm_core.engine_core.plan import Candidates, SampledToken

Outcome = list[SampledToken] | Candidates
"""What a sequence gets in a step; a token of -1 says that the model gave no usable numbers."""

BROKEN: list[SampledToken] = [SampledToken(-1)]


@dataclass(slots=True, frozen=True)
class Span:
    """A sequence's rows in a batch: one, and one more for each of its drafts."""

    state: SequenceState
    drafts: Sequence[int] = ()


@dataclass(slots=True, frozen=True)
class LogitBatch:
    """Logits (rows, vocabulary) of sequences that decode by one strategy, span by span.

    `adjusted`: the sequences' parameters change scores; otherwise nothing of theirs has to be looked at.
    """

    logits: Tensor
    spans: Sequence[Span]
    adjusted: bool = False

    def rows(self) -> list[Row]:
        return [Row(span.state, span.drafts[:ahead]) for span in self.spans for ahead in range(len(span.drafts) + 1)]

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Float32 scores to choose from; the logits stay as they are."""
        if not self.adjusted:
            return self.logits.float()
        scores = self.logits.to(torch.float32, copy=True)
        adjust(scores, rows)
        return scores

    def unusable(self) -> Tensor:
        """Rows (booleans) whose largest logit is no finite number."""
        return self.logits.amax(-1).isfinite().logical_not_()


class BaseDecodingStrategy(ABC):
    """One object an engine and strategy. It keeps nothing between calls: what lasts is in the sequences' states."""

    @abstractmethod
    def __call__(self, batch: LogitBatch) -> list[Outcome]:
        """One outcome a span, in order. Tokens that are given out are also taken in by their states."""


class TokenStrategy(BaseDecodingStrategy):
    """A strategy that chooses tokens: all rows in one go, then each span keeps what its drafts bear out."""

    @abstractmethod
    def choose(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        """A token id (rows,) for every row of scores (rows, vocabulary)."""

    def __call__(self, batch: LogitBatch) -> list[Outcome]:
        rows = batch.rows()
        chosen = self.choose(batch.scores(rows), rows).masked_fill(batch.unusable(), -1)
        ids: list[int] = chosen.tolist()
        wanting = [at for at, row in enumerate(rows) if row.state.params.logprobs is not None]
        tokens = [SampledToken(token) for token in ids]
        if wanting:
            counts = [rows[at].state.params.logprobs or 0 for at in wanting]
            for at, token in zip(wanting, top_logprobs(batch.logits, wanting, ids, counts), strict=True):
                tokens[at] = token
        outcomes: list[Outcome] = []
        first = 0
        for span in batch.spans:
            outcomes.append(keep(span, tokens[first : first + len(span.drafts) + 1]))
            first += len(span.drafts) + 1
        return outcomes


def keep(span: Span, tokens: list[SampledToken]) -> list[SampledToken]:
    """The tokens up to the first that differs from its draft or ends the answer, that one too; the state has them."""
    state = span.state
    for at, token in enumerate(tokens):
        if token.token_id < 0 or (state.grammar is not None and state.grammar.fault):
            return tokens[:at] + BROKEN
        state.accept(token.token_id)
        if at < len(span.drafts) and (token.token_id != span.drafts[at] or token.token_id in state.stop_ids):
            return tokens[: at + 1]
    return tokens

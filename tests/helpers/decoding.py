"""A step's decoding without a model: rows of logits stand for the hidden states that they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sagellm_core.decoding.decoder import StepDecoder
from sagellm_core.decoding.grammar import GrammarCompiler
from sagellm_core.engine_core.plan import BatchType, NewSequence, SchedulerOutput, StepOutput
from sagellm_protocol.sampling import SamplingParams


def new(seq_id: str, prompt: Sequence[int] = (), stop_ids: Sequence[int] = (), **params: Any) -> NewSequence:
    return NewSequence(seq_id, list(prompt), SamplingParams(**params), stop_ids=list(stop_ids))


class Bench:
    """A decoder with sequences, driven by hand-made logits."""

    def __init__(self, *sequences: NewSequence, grammars: GrammarCompiler | None = None) -> None:
        self.decoder = StepDecoder(grammars)
        self.new = list(sequences)

    def step(self, logits: Mapping[str, torch.Tensor], drafts: Mapping[str, list[int]] | None = None) -> StepOutput:
        """One step: logits (1 + drafts, vocabulary) by sequence, in the order of the batch."""
        drafts = dict(drafts or {})
        names, counts = list(logits), [len(rows) for rows in logits.values()]
        tokens = [token for name in names for token in [0, *drafts.get(name, [])]]
        plan = SchedulerOutput(
            step=1,
            batch_type=BatchType.DECODE,
            seq_ids=names,
            token_ids=tokens,
            positions=[0] * len(tokens),
            slot_mapping=[0] * len(tokens),
            query_lens=counts,
            context_lens=counts,
            block_tables=[[0]] * len(names),
            samples=[True] * len(names),
            new=self.new,
            drafts=drafts,
        )
        self.new = []
        self.decoder.begin(plan)
        return self.decoder.decode(plan, torch.cat(list(logits.values())), lambda rows: rows)

    def tokens(
        self, logits: Mapping[str, torch.Tensor], drafts: Mapping[str, list[int]] | None = None
    ) -> list[list[int]]:
        """The tokens that each sequence of the step got."""
        output = self.step(logits, drafts)
        return [[token.token_id for token in output.tokens[name]] for name in logits]


def chi_square(counts: Counter[int], probabilities: Sequence[float]) -> float:
    """Pearson's statistic over the tokens that can come; the others must not have come."""
    total = sum(counts.values())
    assert set(counts) <= {index for index, each in enumerate(probabilities) if each > 0}
    return sum((counts[i] - total * each) ** 2 / (total * each) for i, each in enumerate(probabilities) if each > 0)


def normalised(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]

"""From the hidden states of a step to what its sequences get: tokens, candidates, log-probabilities, vectors.

The one place that knows which rows of a step are wanted. Rows are grouped by strategy and by whether their scores are
changed, and each group is one call, so that a sequence with rare wishes does not slow the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagellm_core.backends.base import CapturedStep
from sagellm_core.decoding.base import BaseDecodingStrategy, LogitBatch, Outcome, Span, keep
from sagellm_core.decoding.beam_search import BeamSearchStrategy
from sagellm_core.decoding.contrastive import ContrastiveStrategy
from sagellm_core.decoding.grammar import GrammarCompiler, GrammarState
from sagellm_core.decoding.greedy import GreedyStrategy
from sagellm_core.decoding.logprobs import prompt_logprobs
from sagellm_core.decoding.sampling import SamplingStrategy
from sagellm_core.decoding.speculative import SpeculativeStrategy
from sagellm_core.decoding.state import SequenceState
from sagellm_core.engine_core.plan import Candidates, NewSequence, SampledToken, SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError
from sagellm_protocol.sampling import DecodingStrategy

ToLogits = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class StepRows:
    """The rows of a step's hidden states that become logits, and whose they are.

    `spans` and `seq_ids` go together; a span's rows begin at `firsts` in `rows`.
    """

    seq_ids: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


class StepDecoder:
    """The sequences of one engine that are known to its worker, and how they decode.

    `answers`: what this rank chooses counts; another only takes its part in the products that make logits. `forces`:
    tokens that a grammar leaves no choice about come along with the one before them, without a step of their own; off
    where steps of one token a sequence are much faster than others.
    """

    def __init__(self, grammars: GrammarCompiler | None = None, *, answers: bool = True) -> None:
        self.states: dict[str, SequenceState] = {}
        self.forces = True
        self._grammars = grammars
        self._answers = answers
        self._faults: dict[str, str] = {}
        self._masks: list[NDArray[numpy.int32]] = []
        self.strategies: dict[DecodingStrategy, BaseDecodingStrategy] = {
            DecodingStrategy.GREEDY: GreedyStrategy(),
            DecodingStrategy.SAMPLING: SamplingStrategy(),
            DecodingStrategy.SPECULATIVE: SpeculativeStrategy(),
            DecodingStrategy.BEAM_SEARCH: BeamSearchStrategy(),
            DecodingStrategy.CONTRASTIVE: ContrastiveStrategy(),
        }

    def begin(self, plan: SchedulerOutput) -> None:
        """Carry out a plan's forks; forget who has finished; remember who is new."""
        for fork in plan.forks:
            self.states[fork.child] = self.states[fork.parent].fork(fork.index)
        for seq_id in plan.finished:
            self.states.pop(seq_id, None)
            self._faults.pop(seq_id, None)
        for new in plan.new:
            self.states[new.seq_id] = SequenceState.of(new, self._grammar(new))

    def select(self, plan: SchedulerOutput) -> StepRows:
        """The last row of every sequence that samples, and with drafts the rows that check them."""
        found = StepRows()
        end = 0
        for index, seq_id in enumerate(plan.seq_ids):
            end += plan.query_lens[index]
            if not plan.samples[index]:
                continue
            state = self.states[seq_id]
            if state.pooled is not None:
                continue
            drafts = plan.drafts.get(seq_id, ())
            found.seq_ids.append(seq_id)
            found.spans.append(Span(state, drafts))
            found.firsts.append(len(found.rows))
            found.rows += range(end - 1 - len(drafts), end)
        return found

    def masks(self, found: StepRows) -> array[int] | None:
        """What grammars allow in these rows of a step, for the sequences that want only the likeliest token.

        For each row the address of a bit a token, or 0 where every token is allowed; None where that is so in all.
        Good until the next step.
        """
        if all(span.state.grammar is None for span in found.spans):
            return None
        addresses = array("q")
        self._masks.clear()
        for span in found.spans:
            grammar = span.state.grammar if span.state.plain else None
            if grammar is None:
                addresses.extend([0] * (len(span.drafts) + 1))
            elif not span.drafts:
                addresses.append(grammar.mask_address)
            else:
                self._masks.append(grammar.masks(span.drafts))
                addresses.extend(row.ctypes.data for row in self._masks[-1])
        return addresses

    def decode(self, plan: SchedulerOutput, hidden: Tensor, to_logits: ToLogits) -> StepOutput:
        """What a step gave; `hidden` (tokens, hidden) are the normalised states of all its tokens."""
        output = StepOutput(plan.step, {})
        self._watch(plan, hidden, to_logits, output)
        found = self.select(plan)
        if found.spans:
            logits = to_logits(_rows_of(hidden, found.rows))
            if self._answers:
                self._choose(found, range(len(found.spans)), logits, output)
        return output

    def take(
        self, plan: SchedulerOutput, found: StepRows, step: CapturedStep, to_logits: ToLogits, *, masked: bool
    ) -> StepOutput:
        """The same for a step that has the logits of all that `select` found, and the likeliest tokens.

        `masked`: of those that `masks` allowed; else sequences with a grammar choose from their logits.
        """
        output = StepOutput(plan.step, {})
        self._watch(plan, step.hidden, to_logits, output)
        others: list[int] = []
        for at, span in enumerate(found.spans):
            if span.state.plain and (masked or span.state.grammar is None):
                tokens = [SampledToken(step.greedy[row]) for row in _rows(found, at)]
                self._put(found.seq_ids[at], keep(span, tokens), output)
            else:
                others.append(at)
        if others:
            self._choose(found, others, step.logits, output)
        return output

    def _choose(self, found: StepRows, members: Sequence[int], logits: Tensor, output: StepOutput) -> None:
        """What these of the spans get, from the logits of all that were found."""
        for (strategy, adjusted), group in _groups(found, members).items():
            rows = [row for at in group for row in _rows(found, at)]
            batch = LogitBatch(_rows_of(logits, rows), [found.spans[at] for at in group], adjusted)
            for at, outcome in zip(group, self.strategies[strategy](batch), strict=True):
                self._put(found.seq_ids[at], outcome, output)

    def _put(self, seq_id: str, outcome: Outcome, output: StepOutput) -> None:
        if isinstance(outcome, Candidates):
            output.candidates[seq_id] = outcome
            return
        output.tokens[seq_id] = outcome
        state = self.states[seq_id]
        fault = self._faults.get(seq_id, "") if self._faults else ""
        if state.grammar is not None:
            fault = state.grammar.fault
            if not fault and outcome[-1].token_id not in state.stop_ids:
                state.grammar.prepare()  # now, when no other thread waits for its turn at Python
                if self.forces and not state.params.n_speculative_tokens:
                    outcome += [SampledToken(token) for token in state.force()]
        if fault:
            output.tokens[seq_id] = [SampledToken(-1)]
            output.failures[seq_id] = fault

    def _watch(self, plan: SchedulerOutput, hidden: Tensor, to_logits: ToLogits, output: StepOutput) -> None:
        """Sequences that need more than their last row: searches, vectors, prompt log-probabilities."""
        first = 0
        for index, (seq_id, count) in enumerate(zip(plan.seq_ids, plan.query_lens, strict=True)):
            state = self.states[seq_id]
            if state.watched:
                piece, position = hidden[first : first + count], plan.positions[first]
                state.observe(plan.token_ids[first : first + count], position)
                if state.history is not None:
                    state.history.put(piece, position)
                if state.pooled is not None:
                    state.pooled.add(piece, position)
                    if plan.samples[index]:
                        output.vectors[seq_id] = state.pooled.vector()
                if state.params.prompt_logprobs is not None:
                    self._score_prompt(seq_id, state, piece, position, to_logits, output)
            first += count

    def _score_prompt(
        self, seq_id: str, state: SequenceState, piece: Tensor, position: int, to_logits: ToLogits, output: StepOutput
    ) -> None:
        """The row of token i scores token i + 1, so a prompt of n tokens has n - 1 scores; each is given once."""
        begin, end = max(position, state.num_scored), min(position + len(piece), len(state.prompt) - 1)
        if begin >= end:
            return
        count = state.params.prompt_logprobs or 0
        targets = state.prompt[begin + 1 : end + 1]
        output.prompt_logprobs[seq_id] = prompt_logprobs(piece[begin - position :], to_logits, targets, count)
        state.num_scored = end

    def _grammar(self, new: NewSequence) -> GrammarState | None:
        """The grammar of a new sequence; one that cannot be had fails its sequence, not the step."""
        if new.sampling.grammar is None or not self._answers:
            return None
        if self._grammars is None:
            self._faults[new.seq_id] = "this worker has no tokenizer, which a grammar needs"
            return None
        try:
            return self._grammars.start(new.sampling.grammar)
        except EngineError as error:
            self._faults[new.seq_id] = str(error)
            return None


def _groups(found: StepRows, members: Sequence[int]) -> dict[tuple[DecodingStrategy, bool], list[int]]:
    """Which of these spans (their numbers) are decoded in one call."""
    groups: dict[tuple[DecodingStrategy, bool], list[int]] = {}
    for at in members:
        span = found.spans[at]
        strategy = DecodingStrategy.SPECULATIVE if span.drafts else span.state.strategy
        groups.setdefault((strategy, span.state.adjusted), []).append(at)
    return groups


def _rows(found: StepRows, at: int) -> range:
    return range(found.firsts[at], found.firsts[at] + len(found.spans[at].drafts) + 1)


def _rows_of(tensor: Tensor, rows: list[int]) -> Tensor:
    """These rows, in ascending order or not; the tensor itself when that is all of them in order."""
    if len(rows) == len(tensor) and rows[0] == 0 and rows[-1] == len(rows) - 1:
        return tensor
    return tensor[torch.tensor(rows, device=tensor.device)]

"""From the hidden states of a step to what its sequences get: tokens, candidates, log-probabilities, vectors.

The one place that knows which rows of a step are wanted. Rows are grouped by strategy and by whether their scores are
changed, and each group is one call, so that a sequence with rare wishes does not slow the others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sagellm_core.decoding.base import BaseDecodingStrategy, LogitBatch, Outcome, Span
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

    `answers`: what this rank chooses counts; another only takes its part in the products that make logits.
    """

    def __init__(self, grammars: GrammarCompiler | None = None, *, answers: bool = True) -> None:
        self.states: dict[str, SequenceState] = {}
        self._grammars = grammars
        self._answers = answers
        self._faults: dict[str, str] = {}
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

    def select(self, plan: SchedulerOutput, done: Collection[str] = ()) -> StepRows:
        """The last row of every sequence that samples and is not `done`, and with drafts the rows that check them."""
        found = StepRows()
        end = 0
        for index, seq_id in enumerate(plan.seq_ids):
            end += plan.query_lens[index]
            if not plan.samples[index] or seq_id in done:
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

    def decode(
        self,
        plan: SchedulerOutput,
        hidden: Tensor,
        to_logits: ToLogits,
        logits: Tensor | None = None,
        taken: StepOutput | None = None,
    ) -> StepOutput:
        """What a step gave; `hidden` (tokens, hidden) are the normalised states of all its tokens.

        `logits` are those of all rows of `hidden`, where they are known. `taken`: what `take` gave of this step; the
        others' tokens are added.
        """
        output = taken or StepOutput(plan.step, {})
        self._watch(plan, hidden, to_logits, output)
        found = self.select(plan, output.tokens)
        if not found.spans:
            return output
        logits = to_logits(_rows_of(hidden, found.rows)) if logits is None else _rows_of(logits, found.rows)
        if not self._answers:
            return output
        for (strategy, adjusted), members in _groups(found).items():
            rows = [row for at in members for row in _rows(found, at)]
            batch = LogitBatch(_rows_of(logits, rows), [found.spans[at] for at in members], adjusted)
            for at, outcome in zip(members, self.strategies[strategy](batch), strict=True):
                self._put(found.seq_ids[at], outcome, output)
        return output

    def masks(self, plan: SchedulerOutput) -> array[int] | None:
        """What grammars allow before a step that brings one token a sequence, for those that want its likeliest token.

        For each sequence the address of a bit a token, or 0 where every token is allowed; None where no sequence has
        such a grammar. Good until the next step.
        """
        states = map(self.states.__getitem__, plan.seq_ids)
        grammars = [state.grammar if state.plain else None for state in states]
        if not any(grammars):
            return None
        return array("q", [0 if grammar is None else grammar.mask_address for grammar in grammars])

    def take(self, plan: SchedulerOutput, likeliest: list[int], *, masked: bool) -> StepOutput:
        """The tokens of sequences that want only the likeliest of a step, which brought one token a sequence.

        `likeliest` (-1: no usable one) is of those that `masks` allowed where it is `masked`; else sequences that have
        a grammar get nothing here. `decode` gives the others theirs.
        """
        output = StepOutput(plan.step, {})
        for seq_id, token in zip(plan.seq_ids, likeliest, strict=True):
            state = self.states[seq_id]
            if not state.plain or not (masked or state.grammar is None):
                continue
            if token >= 0:
                state.accept(token)
                if state.grammar is not None and token not in state.stop_ids:
                    state.grammar.prepare()  # now, when no other thread waits for its turn at Python
            self._put(seq_id, [SampledToken(token)], output)
        return output

    def _put(self, seq_id: str, outcome: Outcome, output: StepOutput) -> None:
        if isinstance(outcome, Candidates):
            output.candidates[seq_id] = outcome
            return
        fault = self._fault(seq_id)
        output.tokens[seq_id] = [SampledToken(-1)] if fault else outcome
        if fault:
            output.failures[seq_id] = fault

    def _fault(self, seq_id: str) -> str:
        """Why a sequence cannot go on, apart from what the model gave."""
        grammar = self.states[seq_id].grammar
        if grammar is not None:
            return grammar.fault
        return self._faults.get(seq_id, "") if self._faults else ""

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


def _groups(found: StepRows) -> dict[tuple[DecodingStrategy, bool], list[int]]:
    """Spans (their numbers) that are decoded in one call."""
    groups: dict[tuple[DecodingStrategy, bool], list[int]] = {}
    for at, span in enumerate(found.spans):
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

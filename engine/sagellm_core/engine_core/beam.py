"""Beam search: the `width` likeliest sequences go on, and those that end are ranked by length-normalised likelihood.

Scores, length penalty and early stopping are those of `transformers`' generate (version 5): a sequence's score is the
sum of its log-probabilities over (generated tokens, the stop token included) ** length_penalty. Without early stopping
the search ends when the best running sequence, at its present length, scores below the worst of `width` finished ones;
with it, as soon as `width` have finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter

from sagellm_core.engine_core.plan import Candidates, SampledToken
from sagellm_core.engine_core.search import Answer, Branch, Turn


@dataclass(slots=True)
class Beam:
    """A running hypothesis: its output so far and the sum of its log-probabilities."""

    tokens: list[SampledToken] = field(default_factory=list)
    total: float = 0.0


class BeamSearch:
    """The beams of one request; `answers` of the `width` finished ones are given back.

    A step needs `2 * width` candidates of every beam (more where a model has more than `width` stop tokens).
    """

    def __init__(
        self,
        width: int,
        answers: int,
        max_tokens: int,
        stop_ids: frozenset[int],
        *,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
    ) -> None:
        self.width = width
        self._answers = answers
        self._max_tokens = max_tokens
        self._stop_ids = stop_ids
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self._beams = [Beam()]
        self._finished: list[Answer] = []
        self._length = 0

    def advance(self, candidates: list[Candidates]) -> Turn:
        """Extend every beam by its candidates, keep the best."""
        ranked = sorted(
            (
                (beam.total + logprob, parent, token, logprob)
                for parent, (beam, offered) in enumerate(zip(self._beams, candidates, strict=True))
                for token, logprob in zip(offered.token_ids, offered.logprobs, strict=True)
            ),
            key=lambda item: -item[0],
        )
        self._length += 1
        last = self._length >= self._max_tokens
        branches: list[Branch] = []
        beams: list[Beam] = []
        for place, (total, parent, token, logprob) in enumerate(ranked):
            stops = token in self._stop_ids
            if stops or last:
                if place < self.width:
                    self._finish(self._extended(parent, token, logprob), total, stops=stops)
            elif len(beams) < self.width:
                branches.append(Branch(parent, token))
                beams.append(Beam(self._extended(parent, token, logprob), total))
        self._beams = beams
        if not beams or self._is_over():
            return Turn(answers=self._finished[: self._answers])
        return Turn(branches)

    def _extended(self, parent: int, token: int, logprob: float) -> list[SampledToken]:
        return [*self._beams[parent].tokens, SampledToken(token, logprob)]

    def _finish(self, tokens: list[SampledToken], total: float, *, stops: bool) -> None:
        """Keep a finished sequence if it is among the best `width`."""
        score = total / self._length**self._length_penalty
        self._finished.append(Answer(tokens, "stop" if stops else "length", score))
        self._finished.sort(key=attrgetter("score"), reverse=True)
        del self._finished[self.width :]

    def _is_over(self) -> bool:
        if len(self._finished) < self.width:
            return False
        best = self._beams[0].total / self._length**self._length_penalty
        return self._early_stopping or best <= self._finished[-1].score

"""What decoding remembers of one sequence between steps: parameters, random stream, tokens seen, grammar, history.

A fork copies a state; nothing is shared that either side changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy
from numpy.typing import NDArray

from sagellm_core.decoding.grammar import GrammarState
from sagellm_core.decoding.history import HiddenHistory
from sagellm_core.decoding.pooling import PooledVector
from sagellm_core.engine_core.groups import searches
from sagellm_core.engine_core.plan import NewSequence
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

_MOST_FORCED = 32


class UniformStream:
    """Numbers in [0, 1), one a token, the same for a seed whatever else runs. `peek` looks ahead without taking.

    A sequence that verifies drafts looks at as many as it has rows and takes as many as it keeps tokens, so that its
    n-th token is drawn with the n-th number however the work was cut.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._random = Random(seed)
        self._ahead: deque[float] = deque()

    def peek(self, index: int = 0) -> float:
        while len(self._ahead) <= index:
            self._ahead.append(self._random.random())
        return self._ahead[index]

    def take(self, count: int = 1) -> None:
        for _ in range(count):
            self.peek()
            self._ahead.popleft()

    def fork(self, index: int) -> UniformStream:
        """The stream of sibling number `index`: its own, and reproducible where this one is."""
        return UniformStream(None if self._seed is None else Random(f"{self._seed}/{index}").getrandbits(64))


class SeenTokens:
    """The distinct tokens of a sequence with how often each came out: what penalties need, as arrays that grow."""

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        known = sorted(set(prompt))
        self._where = {token: index for index, token in enumerate(known)}
        self._ids = numpy.array(known + [0] * 64, dtype=numpy.int64)
        self._counts = numpy.zeros(len(self._ids), dtype=numpy.float32)

    def add(self, token: int) -> None:
        index = self._where.setdefault(token, len(self._where))
        if index >= len(self._ids):
            self._ids = numpy.concatenate((self._ids, numpy.zeros_like(self._ids)))
            self._counts = numpy.concatenate((self._counts, numpy.zeros_like(self._counts)))
        self._ids[index] = token
        self._counts[index] += 1

    def arrays(self, ahead: Sequence[int] = ()) -> tuple[NDArray[numpy.int64], NDArray[numpy.float32]]:
        """Token ids and how often each was put out, as if `ahead` had been put out too. Not to be written to."""
        if ahead:
            further = self.copy()
            for token in ahead:
                further.add(token)
            return further.arrays()
        size = len(self._where)
        return self._ids[:size], self._counts[:size]

    def copy(self) -> SeenTokens:
        other = SeenTokens.__new__(SeenTokens)
        other._where = dict(self._where)
        other._ids, other._counts = self._ids.copy(), self._counts.copy()
        return other


@dataclass(slots=True)
class SequenceState:
    """One sequence. Parts that its parameters do not call for are None.

    `searches`: its tokens are chosen elsewhere, from candidates. `reshaped`: its scores are always changed before a
    choice. `watched`: more than the last row of its pieces is looked at. `direct`: from its first `min_tokens` on, it
    wants of a step the likeliest token alone, of those that its grammar allows if it has one. `num_scored` counts the
    prompt tokens whose log-probabilities were given out (`prompt_logprobs`).
    """

    params: SamplingParams
    prompt: list[int]
    stop_ids: list[int]
    uniforms: UniformStream
    seen: SeenTokens | None = None
    grammar: GrammarState | None = None
    history: HiddenHistory | None = None
    pooled: PooledVector | None = None
    num_output: int = 0
    num_scored: int = 0
    strategy: DecodingStrategy = field(init=False)
    searches: bool = field(init=False)
    reshaped: bool = field(init=False)
    watched: bool = field(init=False)
    direct: bool = field(init=False)

    def __post_init__(self) -> None:
        params = self.params
        self.searches = searches(params)
        by_temperature = DecodingStrategy.SAMPLING if params.temperature > 0 else DecodingStrategy.GREEDY
        self.strategy = params.strategy if self.searches else by_temperature
        self.reshaped = self.seen is not None or self.grammar is not None or bool(params.logit_bias)
        self.watched = self.searches or self.pooled is not None or params.prompt_logprobs is not None
        greedy = self.strategy is DecodingStrategy.GREEDY and params.logprobs is None
        self.direct = greedy and not self.watched and self.seen is None and not params.logit_bias

    @classmethod
    def of(cls, new: NewSequence, grammar: GrammarState | None = None) -> SequenceState:
        """The state of a sequence that begins, or goes on here after `new.output` was put out elsewhere."""
        params = new.sampling
        penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
        stream = UniformStream(params.seed)
        state = cls(
            params=params,
            prompt=new.prompt,
            stop_ids=new.stop_ids,
            uniforms=stream.fork(new.index) if new.index else stream,
            seen=SeenTokens(new.prompt) if penalised else None,
            grammar=grammar,
            history=HiddenHistory() if params.strategy is DecodingStrategy.CONTRASTIVE else None,
            pooled=PooledVector(new.pooling) if new.pooling else None,
        )
        for token in new.output:
            state.accept(token)
        return state

    @property
    def adjusted(self) -> bool:
        """Whether the model's logits are changed before the next token is chosen."""
        return self.reshaped or self.num_output < self.params.min_tokens

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is all that is wanted of a step: of those that the grammar allows, if any."""
        return self.direct and self.num_output >= self.params.min_tokens

    def accept(self, token: int) -> None:
        """Take in a token that was chosen."""
        self.num_output += 1
        if self.seen is not None:
            self.seen.add(token)
        if self.grammar is not None:
            self.grammar.accept(token)
        if self.strategy is DecodingStrategy.SAMPLING:
            self.uniforms.take()

    def force(self) -> list[int]:
        """Tokens that the grammar leaves no choice about, taken in: what would be chosen one by one, by any numbers."""
        tokens: list[int] = []
        left = min(self.params.max_tokens - self.num_output, _MOST_FORCED)
        if self.grammar is None or self.searches or self.params.logprobs is not None:
            return tokens
        while len(tokens) < left and (token := self.grammar.forced()) is not None:
            self.accept(token)
            tokens.append(token)
            if token in self.stop_ids or self.grammar.fault:
                break
        return tokens

    def observe(self, tokens: Sequence[int], position: int) -> None:
        """Take in the tokens that a search was given: those of a step's piece that were not known here."""
        if self.searches:
            known = len(self.prompt) + self.num_output
            for token in tokens[max(known - position, 0) :]:
                self.accept(token)

    def fork(self, index: int) -> SequenceState:
        """A copy for sibling number `index`."""
        return SequenceState(
            params=self.params,
            prompt=self.prompt,
            stop_ids=self.stop_ids,
            uniforms=self.uniforms.fork(index),
            seen=self.seen.copy() if self.seen else None,
            grammar=self.grammar.fork() if self.grammar else None,
            history=self.history.fork() if self.history else None,
            num_output=self.num_output,
            num_scored=self.num_scored,
        )

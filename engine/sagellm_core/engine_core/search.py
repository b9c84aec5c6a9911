"""What a search over several sequences of one request is to the scheduler: candidates in, branches out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sagellm_core.engine_core.plan import Candidates, SampledToken
from sagellm_protocol.messages import FinishReason


class Branch(NamedTuple):
    """A member to go on with: the number of the member that it extends, and by which token."""

    parent: int
    token: int


@dataclass(slots=True)
class Answer:
    """A finished output: its tokens, why it ended, and what ranks it."""

    tokens: list[SampledToken]
    finish_reason: FinishReason
    score: float = 0.0


@dataclass(slots=True)
class Turn:
    """What a search made of one step.

    `branches`: the members of the next step, in order; none when the search is over. `chosen`: tokens of the one answer
    that are certain from now on. `answers`: all of them, best first, when the search is over; None when they went out
    as `chosen`, and then `finish_reason` says why it ended.
    """

    branches: list[Branch] = field(default_factory=list)
    chosen: list[SampledToken] = field(default_factory=list)
    answers: list[Answer] | None = None
    finish_reason: FinishReason | None = None


class Search(Protocol):
    """Decides over the members of one request, which advance in lock-step. It begins with one member, the prompt."""

    width: int
    """The largest number of members."""

    def advance(self, candidates: list[Candidates]) -> Turn:
        """Take in the candidates of every member, in order."""
        ...

"""LLM and embedding work side by side in front of one engine."""

from __future__ import annotations

import math
from typing import Literal

from sage.llm.control_plane.strategies.base import AGEING_SECONDS, AgeingPolicy, Clock, Refusal, Ticket
from sage.llm.control_plane.strategies.fifo import FIFOPolicy
from sage.llm.control_plane.strategies.slo_aware import SLOAwarePolicy

EmbeddingPriority = Literal["high", "normal", "low", "adaptive"]


class HybridPolicy(AgeingPolicy):
    """Two queues, LLM work by deadline and embeddings in the order of their arrival.

    `embedding_priority` says who goes first where both wait: "high" embeddings, "low" LLM work, "normal" shares the
    tokens served, `llm_share` of them for LLM work (stride scheduling: Waldspurger and Weihl, 1995), "adaptive" the
    side whose first ticket has waited for longer.
    """

    name = "hybrid"

    def __init__(
        self,
        clock: Clock,
        *,
        embedding_priority: EmbeddingPriority = "normal",
        llm_share: float = 0.7,
        ageing_seconds: float = AGEING_SECONDS,
    ) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        if not 0 < llm_share < 1:
            raise ValueError(f"llm_share is {llm_share}; it must be between 0 and 1")
        self._embedding_priority = embedding_priority
        self._share = {True: 1 - llm_share, False: llm_share}
        self._sides: dict[bool, AgeingPolicy] = {
            True: FIFOPolicy(clock, ageing_seconds=math.inf),
            False: SLOAwarePolicy(clock, ageing_seconds=math.inf),
        }
        self._passed = {True: 0.0, False: 0.0}

    def ahead(self, ticket: Ticket) -> float:
        """Return the tokens ahead on the ticket's own side, and those of the other side that go in between."""
        embeds = is_embedding(ticket)
        own = self._sides[embeds].ahead(ticket)
        other = sum(each.tokens for each in self._sides[not embeds].tickets())
        if self._embedding_priority in ("high", "low"):
            first = self._embedding_priority == "high"
            return own if embeds is first else own + other
        if self._embedding_priority == "adaptive":
            return own + other
        return own + min(other, (own + ticket.tokens) * self._share[not embeds] / self._share[embeds])

    def admit(self, ticket: Ticket, predicted_wait: float) -> Refusal | None:
        """Ask the ticket's side: LLM work is refused where it would wait past its deadline."""
        return self._sides[is_embedding(ticket)].admit(ticket, predicted_wait)

    def _push(self, ticket: Ticket) -> None:
        """Put it on its side; a side that was empty starts level with the other, whatever it left unused."""
        embeds = is_embedding(ticket)
        if not self._sides[embeds] and self._sides[not embeds]:
            self._passed[embeds] = max(self._passed.values())
        self._sides[embeds].add(ticket)

    def _take(self) -> Ticket:
        """Take from the side whose turn it is."""
        ticket = self._sides[self._embeds_next()].pop()
        assert ticket is not None, "a side without tickets has no turn"
        return ticket

    def _embeds_next(self) -> bool:
        """Whether an embedding goes next."""
        if not self._sides[True] or not self._sides[False]:
            return bool(self._sides[True])
        if self._embedding_priority in ("high", "low"):
            return self._embedding_priority == "high"
        if self._embedding_priority == "adaptive":
            return is_embedding(next(iter(self._added)))
        return self._passed[True] < self._passed[False]

    def _drop(self, ticket: Ticket) -> None:
        """Take it out of its side."""
        self._sides[is_embedding(ticket)].remove(ticket)

    def _pull(self, ticket: Ticket) -> None:
        """Have its side serve it out of order."""
        self._sides[is_embedding(ticket)].pull(ticket)

    def _served(self, ticket: Ticket) -> None:
        """Charge its side with the tokens, weighted by its share."""
        embeds = is_embedding(ticket)
        self._passed[embeds] += ticket.tokens / self._share[embeds]


def is_embedding(ticket: Ticket) -> bool:
    """Whether a ticket is embedding work."""
    return ticket.kind == "embedding"

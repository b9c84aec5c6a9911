"""Looks at what waits, and orders it by the policy that this load asks for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from sage.llm.control_plane.strategies.base import (
    AGEING_SECONDS,
    AgeingPolicy,
    Clock,
    Refusal,
    Ticket,
    adopt,
    reachable,
)
from sage.llm.control_plane.strategies.fair import FairPolicy
from sage.llm.control_plane.strategies.fifo import FIFOPolicy
from sage.llm.control_plane.strategies.priority import PriorityPolicy
from sage.llm.control_plane.strategies.slo_aware import SLOAwarePolicy

DEADLINE_SHARE = 0.2
"""From this share of waiting requests with a deadline on, deadlines decide."""
SKEW = 1.5
"""From this ratio between the largest and the mean number of waiting tokens of a key on, keys share."""

_INNER: dict[str, type[FIFOPolicy] | type[FairPolicy] | type[PriorityPolicy] | type[SLOAwarePolicy]] = {
    one.name: one for one in (FIFOPolicy, FairPolicy, PriorityPolicy, SLOAwarePolicy)
}


class AdaptivePolicy(AgeingPolicy):
    """Slo_aware where many waiting requests have deadlines, else fair where one key crowds the others, else priority
    where priorities differ, else fifo.

    Looks again every `dwell_seconds`, no more often, so that it does not flap; the waiting tickets move along. What
    would wait past its deadline is refused whatever the order is.
    """

    name = "adaptive"

    def __init__(self, clock: Clock, *, dwell_seconds: float = 2.0, ageing_seconds: float = AGEING_SECONDS) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        self._dwell_seconds = dwell_seconds
        self._inner: AgeingPolicy = FIFOPolicy(clock, ageing_seconds=math.inf)
        self._looked_at = -math.inf

    @property
    def mode(self) -> str:
        """Return the name of the policy that decides now."""
        return self._inner.name

    def ahead(self, ticket: Ticket) -> float:
        """Return what the deciding policy says."""
        return self._inner.ahead(ticket)

    def admit(self, ticket: Ticket, predicted_wait: float) -> Refusal | None:
        """Refuse what would wait past its deadline."""
        return reachable(ticket, predicted_wait, self._clock())

    def done(self, ticket: Ticket, tokens: int, seconds: float) -> None:
        """Tell the deciding policy."""
        self._inner.done(ticket, tokens, seconds)

    def _push(self, ticket: Ticket) -> None:
        """Let the deciding policy place it."""
        self._inner.add(ticket)

    def _take(self) -> Ticket:
        """Look at the load where that is due, then take what the deciding policy takes."""
        now = self._clock()
        if now - self._looked_at >= self._dwell_seconds:
            self._looked_at = now
            wanted = suited(self._added)
            if wanted != self._inner.name:
                waiting = self._inner.tickets()
                self._inner = _INNER[wanted](self._clock, ageing_seconds=math.inf)
                adopt(self._inner, waiting)
        ticket = self._inner.pop()
        assert ticket is not None, "whatever waits here waits there"
        return ticket

    def _drop(self, ticket: Ticket) -> None:
        """Take it out of the deciding policy."""
        self._inner.remove(ticket)

    def _pull(self, ticket: Ticket) -> None:
        """Have the deciding policy serve it out of order."""
        self._inner.pull(ticket)


def suited(waiting: Iterable[Ticket]) -> str:
    """Return the name of the policy that suits what waits."""
    tokens: defaultdict[str, int] = defaultdict(int)
    priorities: set[int] = set()
    number = with_deadline = 0
    for ticket in waiting:
        number += 1
        with_deadline += ticket.deadline is not None
        tokens[ticket.key] += ticket.tokens
        priorities.add(ticket.priority)
    if with_deadline and with_deadline >= DEADLINE_SHARE * number:
        return "slo_aware"
    if len(tokens) > 1 and max(tokens.values()) * len(tokens) >= SKEW * sum(tokens.values()):
        return "fair"
    return "priority" if len(priorities) > 1 else "fifo"

"""Policies whose order is a number fixed when a ticket is added."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from itertools import count

from sage.llm.control_plane.strategies.base import AGEING_SECONDS, AgeingPolicy, Clock, Ticket


class HeapPolicy(AgeingPolicy):
    """Serves the ticket of the lowest rank first, and among equal ranks the one that was added first."""

    def __init__(self, clock: Clock, *, ageing_seconds: float = AGEING_SECONDS) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        self._heap: list[tuple[float, int, Ticket]] = []
        self._live: dict[Ticket, int] = {}
        self._numbers = count()

    @abstractmethod
    def rank(self, ticket: Ticket) -> float:
        """Return the place of a ticket: lower is earlier."""

    def ahead(self, ticket: Ticket) -> float:
        """Return the tokens of the waiting tickets that are not behind this one."""
        mine = self.rank(ticket)
        return sum(each.tokens for rank, number, each in self._heap if self._is_live(number, each) and rank <= mine)

    def _is_live(self, number: int, ticket: Ticket) -> bool:
        """Whether an entry of the heap stands for a ticket that still waits."""
        return self._live.get(ticket) == number

    def _push(self, ticket: Ticket) -> None:
        """Put a ticket at its rank."""
        number = next(self._numbers)
        self._live[ticket] = number
        heapq.heappush(self._heap, (self.rank(ticket), number, ticket))

    def _take(self) -> Ticket:
        """Take the ticket of the lowest rank."""
        while True:
            _, number, ticket = heapq.heappop(self._heap)
            if self._is_live(number, ticket):
                del self._live[ticket]
                return ticket

    def _drop(self, ticket: Ticket) -> None:
        """Mark a ticket's entry as gone; when most entries are, sweep the heap, which keeps it bounded."""
        del self._live[ticket]
        if len(self._heap) > 2 * len(self._live) + 16:
            self._heap = [entry for entry in self._heap if self._is_live(entry[1], entry[2])]
            heapq.heapify(self._heap)

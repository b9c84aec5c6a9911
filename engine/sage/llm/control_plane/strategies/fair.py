"""Equal shares of an engine's tokens for all API keys that have work."""

from __future__ import annotations

import math
from collections import deque

from sage.llm.control_plane.strategies.base import AGEING_SECONDS, AgeingPolicy, Clock, Ticket

QUANTUM_TOKENS = 512
_MAX_DEBT_QUANTA = 64


class FairPolicy(AgeingPolicy):
    """Deficit round robin over API keys, weighted by tokens (Shreedhar and Varghese, SIGCOMM 1995).

    Each key that waits is granted `quantum` tokens a round and is served while its credit covers its next ticket;
    within a key the order is that of arrival. So two keys that both wait differ by at most one quantum and one ticket
    of served tokens, whatever their numbers of requests. When a ticket turns out larger than estimated, its key owes
    the difference (at most 64 quanta); smaller, it gets it back. A key that has neither waiting nor running
    work is forgotten: credit is not saved up, and the table is as large as the queue at most.
    """

    name = "fair"

    def __init__(self, clock: Clock, *, quantum: int = QUANTUM_TOKENS, ageing_seconds: float = AGEING_SECONDS) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        if quantum < 1:
            raise ValueError(f"quantum is {quantum}; it must be at least 1")
        self._quantum = quantum
        self._queues: dict[str, dict[Ticket, None]] = {}
        self._round: deque[str] = deque()
        self._credit: dict[str, float] = {}
        self._running: dict[Ticket, None] = {}
        self._running_of: dict[str, int] = {}
        self._granted = False

    def ahead(self, ticket: Ticket) -> float:
        """Return the tokens that are served first: what the key has waiting, and as much of every other key."""
        own = sum(each.tokens for each in self._queues.get(ticket.key, ()))
        others = (queue for key, queue in self._queues.items() if key != ticket.key)
        share = own + ticket.tokens
        return own + sum(min(share, sum(each.tokens for each in queue)) for queue in others)

    def done(self, ticket: Ticket, tokens: int, seconds: float) -> None:
        """Charge the key for what the ticket took beyond its estimate, or give back what it did not take."""
        if ticket not in self._running:
            return  # admitted past an empty queue, or under another policy: it was not charged
        del self._running[ticket]
        key = ticket.key
        self._running_of[key] -= 1
        owed = self._credit[key] + ticket.tokens - tokens
        self._credit[key] = max(owed, -float(_MAX_DEBT_QUANTA * self._quantum))
        if not self._running_of[key]:
            del self._running_of[key]
        self._settle(key)

    def _push(self, ticket: Ticket) -> None:
        """Put a ticket behind its key's others; a key that was not waiting joins the end of the round."""
        queue = self._queues.get(ticket.key)
        if queue is None:
            queue = self._queues[ticket.key] = {}
            self._round.append(ticket.key)
            self._credit.setdefault(ticket.key, 0.0)
        queue[ticket] = None

    def _take(self) -> Ticket:
        """Serve the key whose turn it is while its credit lasts, else grant the next one its quantum."""
        for step in range(2 * len(self._round) + 1):
            key = self._round[0]
            if not self._granted:
                self._credit[key] += self._quantum
                self._granted = True
            ticket = next(iter(self._queues[key]))
            if self._credit[key] >= ticket.tokens:
                self._drop(ticket)
                return ticket
            self._round.rotate(-1)
            self._granted = False
            if step == len(self._round) - 1:
                self._skip_rounds()
        raise AssertionError("a round after the skipped ones serves somebody")

    def _skip_rounds(self) -> None:
        """Grant at once the rounds in which nobody could be served, all but the last."""
        heads = ((self._credit[key], next(iter(self._queues[key])).tokens) for key in self._round)
        rounds = min(math.ceil((tokens - credit) / self._quantum) for credit, tokens in heads)
        for key in self._round:
            self._credit[key] += max(0, rounds - 1) * self._quantum

    def _drop(self, ticket: Ticket) -> None:
        """Take a ticket out of its key's queue; a key without any leaves the round."""
        key = ticket.key
        queue = self._queues[key]
        del queue[ticket]
        if not queue:
            if self._round[0] == key:
                self._granted = False
            self._round.remove(key)
            del self._queues[key]
            self._settle(key)

    def _served(self, ticket: Ticket) -> None:
        """Charge the ticket's key."""
        self._running[ticket] = None
        self._running_of[ticket.key] = self._running_of.get(ticket.key, 0) + 1
        self._credit[ticket.key] = self._credit.get(ticket.key, 0.0) - ticket.tokens
        self._settle(ticket.key)

    def _settle(self, key: str) -> None:
        """Where a key does not wait: drop its credit, keep its debt while it has work running, forget it after."""
        if key in self._queues:
            return
        if key in self._running_of:
            self._credit[key] = min(0.0, self._credit[key])
        else:
            self._credit.pop(key, None)

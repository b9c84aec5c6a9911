"""Earliest deadline first, with refusal at the door of what cannot be met."""

from __future__ import annotations

from sage.llm.control_plane.strategies.base import AGEING_SECONDS, Clock, Refusal, Ticket, reachable
from sage.llm.control_plane.strategies.heap import HeapPolicy


class SLOAwarePolicy(HeapPolicy):
    """Serves the ticket whose deadline is the earliest; one without a deadline has `default_seconds` from its arrival.

    A ticket whose predicted wait passes its deadline is refused when it comes. One whose deadline passes while it
    waits is too late in any case: it goes behind those that can still be met, so that it does not make them late too,
    and ageing bounds how long it then waits.
    """

    name = "slo_aware"

    def __init__(self, clock: Clock, *, default_seconds: float = 30.0, ageing_seconds: float = AGEING_SECONDS) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        self._default_seconds = default_seconds
        self._late: dict[Ticket, None] = {}

    def rank(self, ticket: Ticket) -> float:
        """Return the ticket's deadline, its own or the default one, whichever is earlier."""
        usual = ticket.arrived + self._default_seconds
        return usual if ticket.deadline is None else min(ticket.deadline, usual)

    def admit(self, ticket: Ticket, predicted_wait: float) -> Refusal | None:
        """Refuse what would wait past its deadline."""
        return reachable(ticket, predicted_wait, self._clock())

    def _take(self) -> Ticket:
        """Take the earliest deadline that can still be met, else the ticket that has been late for longest."""
        now = self._clock()
        while self._live:
            ticket = super()._take()
            if ticket.deadline is None or ticket.deadline >= now:
                return ticket
            self._late[ticket] = None
        ticket = next(iter(self._late))
        del self._late[ticket]
        return ticket

    def _drop(self, ticket: Ticket) -> None:
        """Take a ticket out, late or not."""
        if ticket in self._late:
            del self._late[ticket]
        else:
            super()._drop(ticket)

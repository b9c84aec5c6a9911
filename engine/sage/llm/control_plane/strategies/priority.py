"""Higher priorities first, with ageing that lets the lower ones catch up."""

from __future__ import annotations

from sage.llm.control_plane.strategies.base import AGEING_SECONDS, Clock, Ticket
from sage.llm.control_plane.strategies.heap import HeapPolicy

MAX_PRIORITY = 100
"""Priorities beyond plus or minus this count as this: no request can put itself before all others for ever."""


class PriorityPolicy(HeapPolicy):
    """A priority level is worth `level_seconds` of waiting.

    A ticket of priority p is served as though it had come p * level_seconds earlier. All tickets age at the same
    rate, so their order never changes and the rank is fixed when a ticket comes.
    """

    name = "priority"

    def __init__(self, clock: Clock, *, level_seconds: float = 5.0, ageing_seconds: float = AGEING_SECONDS) -> None:
        super().__init__(clock, ageing_seconds=ageing_seconds)
        self._level_seconds = level_seconds

    def rank(self, ticket: Ticket) -> float:
        """Return when the ticket came, moved back by its priority."""
        level = max(-MAX_PRIORITY, min(MAX_PRIORITY, ticket.priority))
        return ticket.arrived - level * self._level_seconds

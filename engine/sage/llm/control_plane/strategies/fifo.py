"""First come, first served."""

from __future__ import annotations

from sage.llm.control_plane.strategies.base import AgeingPolicy, Ticket


class FIFOPolicy(AgeingPolicy):
    """Serves tickets in the order in which they were added."""

    name = "fifo"

    def _push(self, ticket: Ticket) -> None:
        """Nothing to do: the set of waiting tickets is in order."""

    def _take(self) -> Ticket:
        """Take the ticket that was added first."""
        return next(iter(self._added))

    def _drop(self, ticket: Ticket) -> None:
        """Nothing to do."""

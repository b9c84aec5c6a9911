"""What a scheduling policy is: it orders the requests that wait in front of one engine.

Pure Python without asyncio; time comes from an injected clock, so that a policy can be run in virtual time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Clock = Callable[[], float]

AGEING_SECONDS = 30.0
"""A request that has waited so long is served out of order: see `AgeingPolicy`."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request as scheduling sees it; two tickets are never equal.

    `kind` is a `RequestType` value. `key` stands for the API key ("" for none). `tokens`: the estimate of prompt and
    answer. A higher `priority` is served earlier. `arrived` and `deadline` are readings of the policy's clock in
    seconds; the deadline is when the engine must have begun, None for whenever.
    """

    request_id: str = ""
    kind: str = "llm_chat"
    key: str = ""
    tokens: int = 1
    priority: int = 0
    deadline: float | None = None
    arrived: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a policy does not take a request. `retry_after`: in how many whole seconds a new attempt makes sense."""

    code: str
    message: str
    retry_after: int


class SchedulingPolicy(Protocol):
    """The order of a queue. Every ticket that was added is popped or removed exactly once."""

    name: str

    def __len__(self) -> int:
        """Return how many tickets wait."""

    def tickets(self) -> list[Ticket]:
        """Return the waiting tickets in the order in which they were added."""

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait."""

    def pop(self) -> Ticket | None:
        """Return the ticket that is served next, which then no longer waits; None where none waits."""

    def remove(self, ticket: Ticket) -> None:
        """Forget a waiting ticket; raises KeyError where it does not wait."""

    def ahead(self, ticket: Ticket) -> float:
        """Return how many tokens of waiting work would be served before a ticket that is added now."""

    def admit(self, ticket: Ticket, predicted_wait: float) -> Refusal | None:
        """Return why a ticket should be refused at once, None where it may wait; `predicted_wait` in seconds."""

    def done(self, ticket: Ticket, tokens: int, seconds: float) -> None:
        """Take note of what a popped ticket really took."""


class AgeingPolicy(ABC):
    """What the policies share: the set of waiting tickets, and ageing.

    At every second `pop`, a ticket that has waited longer than `ageing_seconds` goes first, the oldest one of them.
    So whatever else arrives, a ticket is served at the latest by the 2 (k + 1)-th pop after it came of age, where k
    older ones waited before it; and ageing takes at most half of the engine from the policy's own order.
    """

    name = ""

    def __init__(self, clock: Clock, *, ageing_seconds: float = AGEING_SECONDS) -> None:
        if not ageing_seconds > 0:
            raise ValueError(f"ageing_seconds is {ageing_seconds}; it must be above 0")
        self._clock = clock
        self._ageing_seconds = ageing_seconds
        self._added: dict[Ticket, float] = {}
        self._aged_last = False

    def __len__(self) -> int:
        """Return how many tickets wait."""
        return len(self._added)

    def tickets(self) -> list[Ticket]:
        """Return the waiting tickets in the order in which they were added."""
        return list(self._added)

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait; raises ValueError where it waits already."""
        if ticket in self._added:
            raise ValueError("this ticket waits already")
        self._added[ticket] = self._clock()
        self._push(ticket)

    def pop(self) -> Ticket | None:
        """Return the ticket that is served next; None where none waits."""
        if not self._added:
            return None
        oldest, since = next(iter(self._added.items()))
        self._aged_last = not self._aged_last and self._clock() - since > self._ageing_seconds
        if self._aged_last:
            self.pull(oldest)
            return oldest
        ticket = self._take()
        del self._added[ticket]
        self._served(ticket)
        return ticket

    def pull(self, ticket: Ticket) -> None:
        """Serve a given ticket out of order; raises KeyError where it does not wait."""
        del self._added[ticket]
        self._pull(ticket)
        self._served(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Forget a waiting ticket; raises KeyError where it does not wait."""
        del self._added[ticket]
        self._drop(ticket)

    def ahead(self, ticket: Ticket) -> float:
        """Return the tokens of all waiting work: nothing overtakes."""
        return sum(each.tokens for each in self._added)

    def admit(self, ticket: Ticket, predicted_wait: float) -> Refusal | None:
        """Take every ticket."""
        return None

    def done(self, ticket: Ticket, tokens: int, seconds: float) -> None:  # noqa: B027 - most policies need no more
        """Learn nothing."""

    @abstractmethod
    def _push(self, ticket: Ticket) -> None:
        """Put a ticket into the policy's own order."""

    @abstractmethod
    def _take(self) -> Ticket:
        """Take the next ticket out of the policy's own order; called only while one waits."""

    @abstractmethod
    def _drop(self, ticket: Ticket) -> None:
        """Take a given ticket out of the policy's own order."""

    def _pull(self, ticket: Ticket) -> None:
        """Take a given ticket out of the policy's own order because it is served now."""
        self._drop(ticket)

    def _served(self, ticket: Ticket) -> None:  # noqa: B027 - most policies keep no accounts
        """Account for a ticket that is about to be served, in order or out of it."""


def reachable(ticket: Ticket, predicted_wait: float, now: float) -> Refusal | None:
    """Return the refusal of a ticket whose deadline would pass while it waits, None where it can be met."""
    if ticket.deadline is None or now + predicted_wait <= ticket.deadline:
        return None
    left = max(0.0, ticket.deadline - now)
    return Refusal(
        "deadline_unreachable",
        f"The wait is about {predicted_wait:.1f} s and the deadline is in {left:.1f} s.",
        max(1, min(60, math.ceil(predicted_wait - left))),
    )


def adopt(policy: SchedulingPolicy, tickets: Sequence[Ticket]) -> None:
    """Add tickets that waited under another policy, in their order."""
    for ticket in tickets:
        policy.add(ticket)

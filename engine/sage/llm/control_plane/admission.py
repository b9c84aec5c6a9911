"""A bounded queue in front of one engine: so many requests run, so many wait, the next one is refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from sage.llm.control_plane.strategies.base import Refusal, SchedulingPolicy, Ticket, adopt
from sage.llm.control_plane.strategies.fifo import FIFOPolicy


class QueueFull(Exception):  # noqa: N818 - named like queue.Full
    """The queue holds as many requests as it may; `retry_after` says in how many seconds a place should be free."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class AdmissionRefused(Exception):  # noqa: N818 - an answer, not a fault
    """The queue's policy does not take the request; `refusal` says why and when to try again."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class AdmissionQueue:
    """`acquire` and `release` bracket a request's work; a waiter that is cancelled leaves.

    Who waits is served in the order of `policy` (None: first come, first served). `clock` returns seconds; it is a
    parameter so that tests can move it, and the policy must read the same one.
    """

    __slots__ = (
        "_mean_seconds",
        "_mean_tokens",
        "_places",
        "_running_tokens",
        "_waiting_tokens",
        "clock",
        "max_running",
        "max_waiting",
        "policy",
        "running",
    )

    def __init__(
        self,
        max_running: int = 64,
        max_waiting: int = 256,
        clock: Callable[[], float] = time.monotonic,
        policy: SchedulingPolicy | None = None,
    ) -> None:
        self.max_running = max_running
        self.max_waiting = max_waiting
        self.clock = clock
        self.policy: SchedulingPolicy = FIFOPolicy(clock) if policy is None else policy
        self.running = 0
        self._places: dict[Ticket, asyncio.Future[None]] = {}
        self._mean_seconds = 1.0
        self._mean_tokens = 0.0
        self._running_tokens = 0
        self._waiting_tokens = 0

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._places)

    @property
    def outstanding(self) -> int:
        """Return how many requests run or wait."""
        return self.running + len(self._places)

    @property
    def outstanding_tokens(self) -> int:
        """Return the estimated tokens of the requests that run or wait."""
        return self._running_tokens + self._waiting_tokens

    def use(self, policy: SchedulingPolicy) -> None:
        """Order the queue by another policy from now on; who waits keeps waiting."""
        adopt(policy, self.policy.tickets())
        self.policy = policy

    async def acquire(self, ticket: Ticket | None = None) -> float:
        """Return the time of admission once the request may run.

        Raises at once QueueFull when too many wait, AdmissionRefused when the policy says so. `release` must be given
        the same ticket.
        """
        if self.running < self.max_running and not self._places:
            self.running += 1
            self._running_tokens += ticket.tokens if ticket else 0
            return self.clock()
        if len(self._places) >= self.max_waiting:
            raise QueueFull(self._retry_after())
        known = ticket
        ticket = ticket or Ticket(tokens=0, arrived=self.clock())
        self._refuse_hopeless(ticket)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places[ticket] = place
        self._waiting_tokens += ticket.tokens
        self.policy.add(ticket)
        try:
            await place
        except asyncio.CancelledError:
            if self._places.pop(ticket, None) is not None:
                self.policy.remove(ticket)
                self._waiting_tokens -= ticket.tokens
            elif not place.cancelled():  # admitted and cancelled at the same moment: the next one gets the place
                self._running_tokens -= ticket.tokens
                self.policy.done(ticket, 0, 0.0)
                self._hand_on()
            raise
        if known is None:
            self.policy.done(ticket, 0, 0.0)  # nobody will tell how it went
        return self.clock()

    def release(self, admitted_at: float, ticket: Ticket | None = None, tokens: int | None = None) -> None:
        """Give the place to the next one; `admitted_at` is what `acquire` returned, `ticket` what it was given.

        `tokens`: what the request really took, where that is known.
        """
        seconds = self.clock() - admitted_at
        self._mean_seconds = 0.9 * self._mean_seconds + 0.1 * seconds
        if ticket is not None:
            self._running_tokens -= ticket.tokens
            self._mean_tokens += 0.1 * (ticket.tokens - self._mean_tokens) if self._mean_tokens else ticket.tokens
            self.policy.done(ticket, ticket.tokens if tokens is None else tokens, seconds)
        self._hand_on()

    def predicted_wait(self, ticket: Ticket) -> float:
        """Return in how many seconds a ticket that comes now would be admitted, from how fast requests left lately.

        Work ahead of it counts by its tokens; the first place is expected after a mean request's time divided by the
        number of places.
        """
        if self.running < self.max_running and not self._places:
            return 0.0
        ahead = self.policy.ahead(ticket)
        requests = ahead / self._mean_tokens if self._mean_tokens else float(len(self._places))
        return self._mean_seconds * (requests + 1) / max(1, self.max_running)

    def _refuse_hopeless(self, ticket: Ticket) -> None:
        """Raise AdmissionRefused where the policy does not take a ticket that would have to wait."""
        refusal = self.policy.admit(ticket, self.predicted_wait(ticket) if ticket.deadline is not None else 0.0)
        if refusal is not None:
            raise AdmissionRefused(refusal)

    def _hand_on(self) -> None:
        """Free one place."""
        while (ticket := self.policy.pop()) is not None:
            place = self._places.pop(ticket)
            self._waiting_tokens -= ticket.tokens
            if not place.done():
                self._running_tokens += ticket.tokens
                place.set_result(None)
                return
            self.policy.done(ticket, 0, 0.0)  # cancelled, and its task has not run since
        self.running -= 1

    def _retry_after(self) -> int:
        """Return in how many seconds a place should be free, from how fast requests have left lately: 1 to 60."""
        seconds = self._mean_seconds * (len(self._places) + 1) / max(1, self.max_running)
        return max(1, min(60, math.ceil(seconds)))

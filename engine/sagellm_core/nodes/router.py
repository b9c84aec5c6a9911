"""Which node does what for which request. Pure Python on one thread: messages in, orders out; no sockets, no clock.

A request goes this way (in brackets: what its decode node answers):

    Expect ──► decode node [Full: wait for its Room] [Reserved: it has `have` of `wanted` blocks]
    Prefill ─► prefill node, which sends the other blocks straight to the decode node
    the decode node runs the request when the last block has come, or on Proceed with those that came

Short prompts, and requests that read no prefix, go whole to a decode node (Enter). A prefill node that dies or fails
costs time, nothing else: its requests proceed where they are. A decode node that dies takes its caches with it: its
requests begin again elsewhere, prompt and answer so far prefilled together, and go on with the next token.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sagellm_core.engine_core.groups import num_answers, reads_prefix, searches
from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.nodes.messages import (
    Arrived,
    Cancel,
    Enter,
    Expect,
    Full,
    Job,
    News,
    NotSent,
    Prefill,
    Proceed,
    Report,
    Reserved,
    Room,
    Sent,
    Up,
)
from sagellm_core.nodes.state import Flight, NodeState, Role, TransferStats
from sagellm_protocol.errors import Error, ErrorCode

MOST_ATTEMPTS = 3


class Router:
    """Requests and nodes. `deliver` gets updates under the requests' own ids, `clock` is the engine's."""

    def __init__(
        self,
        deliver: Callable[[list[Update]], None],
        clock: Callable[[], float],
        *,
        block_size: int,
        threshold_tokens: int,
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._block_size = block_size
        self._threshold = max(threshold_tokens, block_size + 1)
        self.nodes: dict[str, NodeState] = {}
        self.flights: dict[str, Flight] = {}
        self.transfers = TransferStats()
        self._by_job: dict[str, Flight] = {}
        self._queue: list[Flight] = []
        self._arrivals = 0

    # -- requests -----------------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Take a request in; its updates come through `deliver`, the last with a finish reason."""
        sampling = submission.sampling
        flight = Flight(submission, output=list(submission.output), open_answers=set(range(num_answers(sampling))))
        flight.several = searches(sampling) or len(flight.open_answers) > 1
        self._arrivals += 1
        flight.rank = (-submission.priority, self._arrivals)
        self.flights[submission.seq_id] = flight
        self._wait(flight)
        self.dispatch()

    def cancel(self, request_id: str) -> None:
        """End a request with `cancelled`; unknown ids are passed over."""
        flight = self.flights.get(request_id)
        if flight is not None:
            self._withdraw(flight)
            self._end(flight, Error(code=ErrorCode.CANCELLED, message="the request was cancelled"), "cancelled")

    def end_all(self, error: Error) -> None:
        """End every request with an error."""
        for flight in list(self.flights.values()):
            self._end(flight, error)

    def expire(self) -> None:
        """End requests that wait here past their deadline; nodes watch over those that they have."""
        now = self._clock()
        for flight in [each for each in self._queue if (each.submission.deadline or now + 1) <= now]:
            error = Error(code=ErrorCode.DEADLINE_EXCEEDED, message="the request's deadline has passed")
            self._end(flight, error)

    def silent(self, since: float) -> list[NodeState]:
        """Nodes that should be up but have said nothing since then."""
        return [node for node in self.nodes.values() if node.up and node.heard_at < since]

    def dispatch(self) -> None:
        """Give waiting requests to nodes, the most urgent first, until those that decode are full."""
        while self._queue:
            flight = self._queue[0]
            able = [node for node in self.nodes.values() if node.role is not Role.PREFILL]
            if not any(node.up or node.returning for node in able):
                self._end(flight, Error(code=ErrorCode.UNAVAILABLE, message="no node that decodes is left"))
                continue
            free = [node for node in able if node.up and not node.full]
            if not free:
                return
            self._queue.pop(0)
            self._place(flight, min(free, key=lambda node: node.load))

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    # -- nodes --------------------------------------------------------------------------------------------------

    def add_node(self, name: str, role: Role, send: Callable[[Any], None]) -> NodeState:
        """A node that is being started: it takes part when its `Up` comes."""
        node = self.nodes[name] = NodeState(name, role, send)
        return node

    def on_message(self, node: NodeState, message: Any) -> None:
        """Something that a node said."""
        node.heard_at = self._clock()
        if isinstance(message, News):
            self._news(message.updates)
        elif isinstance(message, Report):
            node.stats = message.stats
        elif isinstance(message, Up):
            node.up, node.full, node.returning = True, False, False
            node.address, node.max_model_len, node.stats = message.address, message.max_model_len, message.stats
        elif isinstance(message, Room):
            node.full = False
        elif isinstance(message, Reserved | Full | Arrived | Sent | NotSent):
            flight = self._by_job.get(message.id)
            if flight is not None:
                self._on_progress(flight, node, message)
        self.dispatch()

    def on_lost(self, node: NodeState, why: str, *, returning: bool) -> None:
        """A node is gone. Its work goes elsewhere, or waits for it to return."""
        node.up, node.returning, node.full = False, returning, False
        node.requests.clear()
        node.prompts.clear()
        for flight in list(self.flights.values()):
            if flight.prefill is node and flight.decode is not node:
                flight.prefill = None
                self._order(flight.decode, Proceed(flight.job_id))
            if flight.decode is node:
                self._begin_again(flight, why)
        self.dispatch()

    # -- one request --------------------------------------------------------------------------------------------

    def _place(self, flight: Flight, node: NodeState) -> None:
        flight.decode = node
        node.requests.add(flight.job_id)
        self._by_job[flight.job_id] = flight
        flight.reserving = self._wants_prefill(flight, node)
        job = self._job(flight)
        self._order(node, Expect(job) if flight.reserving else Enter(job))

    def _wants_prefill(self, flight: Flight, node: NodeState) -> bool:
        """Whether it pays to have the prompt computed elsewhere: it is long, and some other node can."""
        item = flight.submission
        if not reads_prefix(item.sampling, item.pooling):
            return False
        return len(flight.tokens) >= self._threshold and self._prefill_node(node) is not None

    def _prefill_node(self, decode: NodeState) -> NodeState | None:
        """The least loaded other node that computes prompts, if a hybrid node would not rather do it itself."""
        able = [node for node in self.nodes.values() if node.up and node.role is not Role.DECODE]
        best = min(able, key=lambda node: node.load[::-1], default=None)
        return None if best is decode else best

    def _on_progress(self, flight: Flight, node: NodeState, message: Any) -> None:
        if isinstance(message, Arrived):
            self._count(flight, message)
            return
        if isinstance(message, Sent | NotSent):
            self._on_sent(flight, node, message)
            return
        if not flight.reserving or node is not flight.decode:
            return
        flight.reserving = False
        if isinstance(message, Full):
            node.full = True
            node.requests.discard(flight.job_id)
            flight.decode = None
            self._wait(flight)
        elif message.have < message.wanted:
            flight.have, flight.wanted = message.have, message.wanted
            flight.cached = message.have * self._block_size
            self._prefill(flight, node)

    def _prefill(self, flight: Flight, node: NodeState) -> None:
        helper = self._prefill_node(node)
        if helper is None or node.address is None:
            self._order(node, Proceed(flight.job_id))
            return
        flight.prefill, flight.prefill_since = helper, self._clock()
        helper.prompts[flight.job_id] = len(flight.tokens) - flight.have * self._block_size
        item = flight.submission
        order = Prefill(
            flight.job_id,
            flight.tokens[: flight.wanted * self._block_size],
            flight.have,
            flight.wanted,
            node.address,
            item.priority,
            item.adapter,
        )
        self._order(helper, order)

    def _on_sent(self, flight: Flight, node: NodeState, message: Sent | NotSent) -> None:
        node.prompts.pop(message.id, None)
        if flight.prefill is node:
            flight.prefill = None
        if isinstance(message, NotSent):
            self.transfers.failures += 1
            self._order(flight.decode, Proceed(flight.job_id))

    def _count(self, flight: Flight, message: Arrived) -> None:
        flight.cached = (flight.have + message.cached) * self._block_size
        blocks, size, ms = flight.kv_transfer
        flight.kv_transfer = (blocks + message.blocks, size + message.bytes, ms + message.ms)
        total = self.transfers
        total.blocks += message.blocks
        total.bytes += message.bytes
        total.ms += message.ms
        total.transfers += 1

    def _begin_again(self, flight: Flight, why: str) -> None:
        """The node that had a request is gone: prefill prompt and answer so far elsewhere, and go on."""
        if flight.prefill is not None:
            self._order(flight.prefill, Cancel(flight.job_id))
            flight.prefill.prompts.pop(flight.job_id, None)
        self._by_job.pop(flight.job_id, None)
        flight.attempt += 1
        flight.decode = flight.prefill = None
        flight.reserving = False
        if flight.attempt >= MOST_ATTEMPTS or (flight.several and flight.output):
            self._end(flight, Error(code=ErrorCode.UNAVAILABLE, message=why, retryable=True))
            return
        self.transfers.re_prefills += 1
        self._wait(flight)

    def _wait(self, flight: Flight) -> None:
        insort(self._queue, flight, key=lambda each: each.rank)

    def _news(self, updates: list[Update]) -> None:
        fresh: list[Update] = []
        now = self._clock()
        for update in updates:
            flight = self._by_job.get(update.seq_id)
            if flight is None:
                continue
            flight.output += [token.token_id for token in update.tokens]
            begun = flight.prefill_since or (now - (update.at - update.scheduled_at) if update.scheduled_at else 0.0)
            fresh.append(
                replace(
                    update,
                    seq_id=flight.submission.seq_id,
                    at=now,
                    scheduled_at=begun,
                    cached_tokens=update.cached_tokens if flight.cached is None else flight.cached,
                    kv_transfer=flight.kv_transfer,
                )
            )
            if update.finish_reason is not None:
                flight.open_answers.discard(update.index)
                if not flight.open_answers:
                    self._forget(flight)
        if fresh:
            self._deliver(fresh)

    def _withdraw(self, flight: Flight) -> None:
        for node in {flight.decode, flight.prefill}:
            self._order(node, Cancel(flight.job_id))

    def _end(self, flight: Flight, error: Error, reason: Any = "error") -> None:
        indexes = sorted(flight.open_answers)
        self._forget(flight)
        name, now = flight.submission.seq_id, self._clock()
        self._deliver([Update(name, now, finish_reason=reason, error=error, index=index) for index in indexes])

    def _forget(self, flight: Flight) -> None:
        self.flights.pop(flight.submission.seq_id, None)
        self._by_job.pop(flight.job_id, None)
        if flight in self._queue:
            self._queue.remove(flight)
        if flight.decode is not None:
            flight.decode.requests.discard(flight.job_id)
        if flight.prefill is not None:
            flight.prefill.prompts.pop(flight.job_id, None)

    def _job(self, flight: Flight) -> Job:
        item = flight.submission
        left = None if item.deadline is None else item.deadline - self._clock()
        return Job(
            flight.job_id,
            item.prompt,
            item.sampling,
            sorted(item.stop_ids),
            item.priority,
            item.max_total,
            left,
            item.adapter,
            item.pooling,
            flight.output[:],
        )

    def _order(self, node: NodeState | None, order: Any) -> None:
        if node is not None and node.up:
            node.send(order)

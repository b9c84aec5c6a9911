"""The decode half of a node: keeps room for blocks that come from prefill nodes, then runs the request.

What comes is named and so becomes part of the prefix cache; the request then runs like any other and finds its prompt
there. Its last block is computed here (a request computes at least one token of its prompt), and so is whatever did not
come, or was evicted before the request's turn: blocks that travel save work, results never depend on them. Everything
but `on_arrival` runs on the step thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.messages import Submission
from sagellm_core.errors import EngineError
from sagellm_core.kv_transfer import Arrival, KVForm
from sagellm_core.nodes.chain import prefix_chain
from sagellm_core.nodes.messages import Arrived, Full, Job, Reserved, Room

_LOG = logging.getLogger("sagellm_core")
_MOST_HELD = 0.5


@dataclass(slots=True, eq=False)
class Incoming:
    """A request whose blocks `have ..` of its chain are on their way into `blocks`, which nobody else can take."""

    job: Job
    chain: list[bytes]
    blocks: list[int]
    have: int
    received: int = 0
    bytes: int = 0
    cached: int = 0
    seconds: float = 0.0
    stored_at: float = 0.0


class DecodeEngine:
    """Takes in requests with blocks that others compute. `report` gets `Reserved` or `Full`, and `Room`."""

    def __init__(
        self,
        core: EngineCore,
        form: KVForm,
        new_submission: Callable[[Job], Submission],
        report: Callable[[Any], None],
    ) -> None:
        self._core = core
        self._form = form
        self._new_submission = new_submission
        self._report = report
        self._incoming: dict[str, Incoming] = {}
        self._refused_at: tuple[int, int] | None = None

    @property
    def num_held(self) -> int:
        """Blocks that are kept for requests which have not begun."""
        return sum(len(item.blocks) for item in self._incoming.values())

    def expect(self, job: Job) -> None:
        """Keep room for a request's full blocks, if there is any to keep."""
        blocks = self._core.scheduler.blocks
        wanted = (len(job.tokens) - 1) // self._form.block_size
        chain = prefix_chain(job.tokens, self._form.block_size, job.adapter)[:wanted]
        shared = blocks.cached_prefix(chain)
        if wanted > blocks.num_blocks * _MOST_HELD or len(shared) == wanted:
            self._report(Reserved(job.id, wanted, wanted))
            self.enter(job)
            return
        missing = wanted - len(shared)
        if not self._has_room(missing + blocks.idle(shared), wanted):
            self._refused_at = self._state()
            self._report(Full(job.id))
            return
        blocks.share(shared)
        taken = blocks.take(missing)
        assert taken is not None, "there is room for them"
        self._incoming[job.id] = Incoming(job, chain, shared + taken, len(shared))
        self._report(Reserved(job.id, len(shared), wanted))

    def enter(self, job: Job) -> None:
        """Hand a request to the scheduler."""
        try:
            self._core.submit(self._new_submission(job))
        except EngineError as error:  # the loop has ended: the node is about to say so
            _LOG.warning("a request came too late: %s", error)

    def proceed(self, job_id: str) -> None:
        """Run a request with the blocks that have come."""
        incoming = self._incoming.pop(job_id, None)
        if incoming is not None:
            if incoming.received:
                ms = 1000 * incoming.seconds
                self._report(Arrived(job_id, incoming.received, incoming.bytes, ms, incoming.cached))
            self.enter(incoming.job)
            self._core.call(lambda: self._release(incoming))  # after the scheduler has seen the request

    def cancel(self, job_id: str) -> bool:
        """Forget a request that has not begun; False when there is none."""
        incoming = self._incoming.pop(job_id, None)
        if incoming is not None:
            self._release(incoming)
        return incoming is not None

    def on_arrival(self, arrival: Arrival) -> None:
        """Blocks came (any thread)."""
        self._core.call(lambda: self._store(arrival))

    def after_step(self) -> None:
        """A step is over: whoever was refused may ask again when there is more room than then.

        Where there is no room for a step, the request that came last gives back what was kept for it.
        """
        if self._incoming and self._core.stalled:
            self.proceed(next(reversed(self._incoming)))
        self._tell_room()

    def _tell_room(self) -> None:
        if self._refused_at is not None and self._state() > self._refused_at:
            self._refused_at = None
            self._report(Room())

    def _store(self, arrival: Arrival) -> None:
        incoming = self._incoming.get(arrival.transfer)
        try:
            if incoming is None or not incoming.have <= arrival.first <= len(incoming.blocks) - arrival.count:
                return
            places = slice(arrival.first, arrival.first + arrival.count)
            self._core.executor.write_blocks(incoming.blocks[places], arrival.content)
        except Exception as error:  # the request computes the rest itself
            _LOG.error("KV blocks could not be stored: %s", error, exc_info=error)
            self.proceed(arrival.transfer)
            return
        finally:
            arrival.done()
        for block, digest in zip(incoming.blocks[places], incoming.chain[places], strict=True):
            self._core.scheduler.blocks.name(block, digest)
        incoming.received += arrival.count
        incoming.bytes += len(arrival.content)
        incoming.cached += arrival.cached
        now = monotonic()
        incoming.seconds += now - max(arrival.began, incoming.stored_at)
        incoming.stored_at = now
        if incoming.have + incoming.received == len(incoming.blocks):
            self.proceed(arrival.transfer)

    def _release(self, incoming: Incoming) -> None:
        self._core.scheduler.blocks.release(incoming.blocks)
        self._tell_room()

    def _has_room(self, needed: int, wanted: int) -> bool:
        """Whether blocks can be set aside without starving what runs, and the request will have its turn soon."""
        scheduler = self._core.scheduler
        blocks = scheduler.blocks
        reserve = min(len(scheduler.running), blocks.num_blocks // 16) + 1
        ahead = len(scheduler.waiting) + len(self._incoming)
        return (
            needed + reserve <= blocks.num_free
            and self.num_held + wanted <= blocks.num_blocks * _MOST_HELD
            and ahead < scheduler.config.max_batch_size
        )

    def _state(self) -> tuple[int, int]:
        """Grows when room comes: fewer requests ahead, or more free blocks."""
        scheduler = self._core.scheduler
        return -len(scheduler.waiting) - len(self._incoming), scheduler.blocks.num_free

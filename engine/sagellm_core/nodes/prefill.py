"""The prefill half of a node: computes prompts and sends their blocks on, each as soon as it is full.

Blocks are found by their content's name (the hash chain of the prefix cache), not by following a sequence: what other
requests computed before is sent at once, and nothing here depends on how the scheduler runs a prompt. A block that has
to be sent has an owner here until it is in the channel, so it cannot be taken away. Everything but `on_free` and
`on_broken` runs on the step thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.errors import EngineError
from sagellm_core.kv_transfer import KVAddress, KVForm, KVTransferChannel
from sagellm_core.nodes.chain import prefix_chain
from sagellm_core.nodes.messages import NotSent, Prefill, Sent
from sagellm_core.wire import Fault
from sagellm_protocol.errors import Error, ErrorCode
from sagellm_protocol.sampling import SamplingParams

NewChannel = Callable[[KVAddress, Callable[[str], None], Callable[[EngineError], None]], KVTransferChannel]


@dataclass(slots=True, eq=False)
class Outgoing:
    """One prompt. `found` blocks of its chain are known to be computed; of those, `pending` are not sent yet.

    `cached` were there when the order came, `under_way` frames are not confirmed yet.
    """

    order: Prefill
    chain: list[bytes]
    channel: KVTransferChannel
    found: int
    pending: deque[int] = field(default_factory=deque)
    under_way: int = 0
    computing: bool = False
    cached: int = 0

    @property
    def next_to_send(self) -> int:
        return self.found - len(self.pending)

    @property
    def complete(self) -> bool:
        return self.found == self.order.wanted and not self.pending and not self.under_way


class PrefillEngine:
    """Carries out `Prefill` orders on an engine core. `report` gets `Sent` or `NotSent` for each that goes through."""

    def __init__(self, core: EngineCore, form: KVForm, new_channel: NewChannel, report: Callable[[Any], None]) -> None:
        self._core = core
        self._form = form
        self._new_channel = new_channel
        self._report = report
        self._tasks: dict[str, Outgoing] = {}
        self._channels: dict[KVAddress, KVTransferChannel] = {}

    def begin(self, order: Prefill) -> None:
        """Send what is in the cache already, and have the rest computed."""
        chain = prefix_chain(order.tokens[: order.wanted * self._form.block_size], self._form.block_size, order.adapter)
        try:
            channel = self._channel(order.to)
        except EngineError as error:
            self._report(NotSent(order.id, Fault.of(error)))
            return
        task = self._tasks[order.id] = Outgoing(order, chain, channel, order.have)
        self._collect(task)
        task.cached = task.found - order.have
        if task.found < order.wanted:
            task.computing = True
            tokens = order.tokens[: order.wanted * self._form.block_size]
            once = SamplingParams(max_tokens=1)
            self._core.submit(Submission(order.id, tokens, once, priority=order.priority, adapter=order.adapter))
        self._pump(task)

    def cancel(self, task_id: str) -> None:
        """Give up a prompt; its receiver is told by others."""
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._core.scheduler.blocks.release(list(task.pending))
            if task.computing:
                self._core.cancel(task_id)

    def after_step(self) -> None:
        """A step is over: send the blocks that it filled."""
        for task in list(self._tasks.values()):
            self._collect(task)
            self._pump(task)

    def take_updates(self, updates: list[Update]) -> list[Update]:
        """Keep the updates of prompts that are computed for others; the rest is returned."""
        rest: list[Update] = []
        for update in updates:
            task = self._tasks.get(update.seq_id)
            if task is None:
                rest.append(update)
            elif update.finish_reason is not None:
                task.computing = False
                if task.found < task.order.wanted:
                    self._fail(
                        task, update.error or Error(code=ErrorCode.INTERNAL, message="a prompt's blocks are lost")
                    )
        return rest

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    # -- blocks -------------------------------------------------------------------------------------------------

    def _collect(self, task: Outgoing) -> None:
        blocks = self._core.scheduler.blocks
        fresh = blocks.cached_prefix(task.chain[task.found :])
        blocks.share(fresh)
        task.pending.extend(fresh)
        task.found += len(fresh)

    def _pump(self, task: Outgoing) -> None:
        """Send as many pending blocks as the receiver has slots for."""
        channel = task.channel
        while task.pending and channel.num_free:
            first = task.next_to_send
            count = min(len(task.pending), channel.blocks_per_slot)
            blocks = [task.pending.popleft() for _ in range(count)]
            content = self._core.executor.read_blocks(blocks)
            self._core.scheduler.blocks.release(blocks)
            cached = max(0, min(first + count, task.order.have + task.cached) - first)
            channel.send(task.order.id, first, count, content, cached=cached)
            task.under_way += 1
        self._conclude(task)

    def _conclude(self, task: Outgoing) -> None:
        if task.complete and self._tasks.pop(task.order.id, None) is not None:
            self._report(Sent(task.order.id))

    def _fail(self, task: Outgoing, error: Error) -> None:
        self.cancel(task.order.id)
        self._report(NotSent(task.order.id, Fault(error.code, error.message)))

    # -- channels -----------------------------------------------------------------------------------------------

    def _channel(self, address: KVAddress) -> KVTransferChannel:
        channel = self._channels.get(address)
        if channel is None:
            call = self._core.call
            channel = self._new_channel(
                address,
                lambda task_id: call(lambda: self._freed(address, task_id)),
                lambda error: call(lambda: self._broken(address, error)),
            )
            self._channels[address] = channel
            channel.open()
        return channel

    def _freed(self, address: KVAddress, task_id: str) -> None:
        task = self._tasks.get(task_id)
        if task is not None:
            task.under_way -= 1
        for other in [each for each in self._tasks.values() if each.channel.address == address]:
            self._pump(other)

    def _broken(self, address: KVAddress, error: EngineError) -> None:
        channel = self._channels.pop(address, None)
        if channel is not None:
            channel.close()
        for task in [each for each in self._tasks.values() if each.channel is channel]:
            self._fail(task, error.to_protocol())

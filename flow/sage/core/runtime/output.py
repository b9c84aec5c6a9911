"""The sending end of an edge: a buffer that generated chains append to, and how it is spread over the receivers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from sage.core.graph.spec import FunctionSpec, Partitioning
from sage.core.runtime.channel import batches
from sage.core.runtime.events import ControlEvent, Item, Records
from sage.core.runtime.partition import KeyPartitioner

__all__ = ["KeySelectionFailed", "Output", "Receiver"]


class KeySelectionFailed(Exception):  # noqa: N818 - carries the user's exception as its cause
    """The key selector of an edge raised, or its keys cannot be partitioned."""

    def __init__(self, key: FunctionSpec, record: Any) -> None:
        super().__init__("key selection failed")
        self.key = key
        self.record = record


class Receiver(Protocol):
    """The receiving gate, in this process or behind a connection."""

    preferred: int

    def put(self, sender: int, item: Item) -> None:
        """Add an item at the end of the sender's channel; waits for room."""


class Output:
    """One subtask's side of one edge. Used by that subtask's thread only.

    `receivers` are pairs of a gate and the number of this sender's channel there. With `forward` there is one.
    """

    def __init__(
        self,
        receivers: list[tuple[Receiver, int]],
        partitioning: Partitioning,
        key: tuple[FunctionSpec, Callable[[Any], Any]] | None,
        *,
        size: int,
        timeout: float,
    ) -> None:
        self.buffer: Records = []
        self.sent = 0
        self._receivers = receivers
        self._split: Callable[[Records], list[Records]] = self._whole
        if partitioning is Partitioning.HASH and key is not None:
            self._split = self._by_key(key[0], KeyPartitioner(key[1], len(receivers)))
        elif len(receivers) > 1:
            self._split = self._deal
        self._size = size
        self._timeout = timeout
        self._turn = 0
        self._flushed_at = time.monotonic()

    def flush(self) -> None:
        """Send everything that is buffered; waits while the receivers are full."""
        self._flushed_at = time.monotonic()
        if not self.buffer:
            return
        records = self.buffer[:]
        self.buffer.clear()
        for (gate, sender), part in zip(self._receivers, self._split(records), strict=True):
            if part:
                for batch in batches(part, max(1, min(self._size, gate.preferred))):
                    gate.put(sender, batch)
        self.sent += len(records)

    def flush_if_due(self) -> None:
        """Send when the buffer is full for these receivers, or older than `buffer.timeout`."""
        if not self.buffer:
            return
        wanted = min(self._size, sum(gate.preferred for gate, _ in self._receivers))
        if len(self.buffer) >= wanted or time.monotonic() - self._flushed_at >= self._timeout:
            self.flush()

    def broadcast(self, event: ControlEvent) -> None:
        """Send a control event to every receiver, after everything that is buffered."""
        self.flush()
        for gate, sender in self._receivers:
            gate.put(sender, event)

    def _whole(self, records: Records) -> list[Records]:
        return [records]

    def _by_key(self, key: FunctionSpec, partitioner: KeyPartitioner) -> Callable[[Records], list[Records]]:
        def split(records: Records) -> list[Records]:
            try:
                return partitioner.split(records)
            except BaseException as error:
                raise KeySelectionFailed(key, partitioner.failed_at) from error

        return split

    def _deal(self, records: Records) -> list[Records]:
        """Round robin by record, going on where the last batch ended."""
        count = len(self._receivers)
        parts: list[Records] = [[] for _ in range(count)]
        for offset in range(min(count, len(records))):
            parts[(self._turn + offset) % count] = records[offset::count]
        self._turn = (self._turn + len(records)) % count
        return parts

"""The sending end of an edge: a buffer that generated chains append to, and how it is spread over the receivers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from sage.core.graph.spec import FunctionSpec, Partitioning
from sage.core.runtime.events import (
    FINAL_WATERMARK,
    Barrier,
    Batch,
    ControlEvent,
    Item,
    LatencyMarker,
    TraceContext,
    Watermark,
)
from sage.core.runtime.meter import Meter
from sage.core.runtime.partition import KeyPartitioner

__all__ = ["KeySelectionFailed", "Output", "Receiver", "Target"]


class KeySelectionFailed(Exception):  # noqa: N818 - carries the user's exception as its cause
    """The key selector of an edge raised, or its keys cannot be partitioned."""

    def __init__(self, key: FunctionSpec, record: Any) -> None:
        super().__init__("key selection failed")
        self.key = key
        self.record = record


OnKeyError = Callable[[Any, int | None, Exception], None]  # the record, its event time, what was raised


class Receiver(Protocol):
    """The receiving gate, in this process or behind a connection."""

    preferred: int

    def put(self, sender: int, item: Item, *, force: bool = False) -> float:
        """Add an item at the end of the sender's channel; waits for room unless `force`. Returns the seconds waited."""


class Target(ABC):
    """Where the records of an operator go: `buffer`, and `timestamps` beside it while `timed`.

    Generated code appends to both lists itself after `begin`; everyone else uses `send`.
    """

    def __init__(self) -> None:
        self.buffer: list[Any] = []
        self.timestamps: list[int] = []
        self.timed = False

    def begin(self, timed: bool) -> None:
        """The records that follow have timestamps, or none."""
        if timed is not self.timed:
            self.flush()
            self.timed = timed

    def send(self, batch: Batch) -> None:
        """Records after those in the buffer."""
        self.begin(batch.timestamps is not None)
        self.buffer.extend(batch.records)
        if batch.timestamps is not None:
            self.timestamps.extend(batch.timestamps)

    @abstractmethod
    def flush(self) -> None:
        """Hand on everything that is buffered."""

    @abstractmethod
    def event(self, event: ControlEvent) -> None:
        """A control event, after everything that is buffered."""

    def drained(self) -> Batch:
        """What is buffered; the buffer is empty afterwards."""
        batch = Batch(self.buffer[:], self.timestamps[:] if self.timed else None)
        self.buffer.clear()
        self.timestamps.clear()
        return batch


class Output(Target):
    """One subtask's side of one edge. Used by that subtask's thread only.

    `receivers` are pairs of a gate and the number of this sender's channel there. With `forward` there is one. `tag`:
    the side output that feeds it. With `on_key_error`, a record whose key cannot be had goes there and is left out.
    """

    def __init__(
        self,
        receivers: list[tuple[Receiver, int]],
        partitioning: Partitioning,
        key: tuple[FunctionSpec, Callable[[Any], Any]] | None,
        *,
        size: int,
        timeout: float,
        subtask: int = 0,
        senders: int = 1,
        meter: Meter | None = None,
        tag: str | None = None,
        on_key_error: OnKeyError | None = None,
    ) -> None:
        super().__init__()
        self.tag = tag
        self._on_key_error = on_key_error
        self.sent = 0
        self._receivers = receivers
        self._split: Callable[[Batch], list[Batch]] = _whole
        if partitioning is Partitioning.HASH and key is not None:
            self._split = self._by_key(key[0], KeyPartitioner(key[1], len(receivers)))
        elif partitioning is Partitioning.BROADCAST:
            self._split = self._everywhere
        elif len(receivers) > 1:
            self._split = self._deal
        self._first, self._share = _share(partitioning, subtask, senders, len(receivers))
        self._size = size
        self._timeout = timeout
        self.meter = meter or Meter()
        self._turn = 0
        self._trace: TraceContext | None = None
        self.flushed_at = time.monotonic()

    def flush(self) -> None:
        """Send everything that is buffered; waits while the receivers are full."""
        self._send_buffer(force=False)

    def flush_traced(self, trace: TraceContext) -> None:
        """Send everything that is buffered; it came out of a record that is traced."""
        self._trace = trace
        try:
            self._send_buffer(force=False)
        finally:
            self._trace = None

    def overtake(self, barrier: Barrier) -> None:
        """Send an unaligned barrier; what is buffered goes along without waiting, the receiver captures it."""
        self._send_buffer(force=True)
        for gate, sender in self._receivers:
            self._put(gate, sender, barrier, force=True)

    def _send_buffer(self, *, force: bool) -> None:
        self.flushed_at = time.monotonic()
        if not self.buffer:
            return
        batch = self.drained()
        for (gate, sender), part in zip(self._receivers, self._split(batch), strict=True):
            if part.records:
                for piece in part.split(max(1, min(self._size, gate.preferred))):
                    piece.trace = self._trace
                    self._put(gate, sender, piece, force=force)
        self.sent += len(batch.records)

    def flush_if_due(self) -> None:
        """Send when the buffer is full for these receivers, or older than `buffer.timeout`."""
        if not self.buffer:
            return
        wanted = min(self._size, sum(gate.preferred for gate, _ in self._receivers))
        if len(self.buffer) >= wanted or time.monotonic() - self.flushed_at >= self._timeout:
            self.flush()

    def send(self, batch: Batch) -> None:
        super().send(batch)
        if len(self.buffer) >= self._size:
            self.flush()

    def event(self, event: ControlEvent) -> None:
        """Send it to every receiver, a latency marker to one.

        The last watermark is not sent: EndOfStream says it, behind what operators emit when they finish.
        """
        self.flush()
        if isinstance(event, Watermark) and event.timestamp == FINAL_WATERMARK:
            return
        if isinstance(event, LatencyMarker):
            self._put(*self._receivers[self._turn % len(self._receivers)], event)
            return
        for gate, sender in self._receivers:
            self._put(gate, sender, event)

    def _put(self, gate: Receiver, sender: int, item: Item, *, force: bool = False) -> None:
        meter = self.meter
        meter.sending_since = time.perf_counter()
        try:
            waited = gate.put(sender, item, force=force)
        finally:
            meter.sending_since = 0.0
        if waited:
            meter.waited(waited)

    def _by_key(self, key: FunctionSpec, partitioner: KeyPartitioner) -> Callable[[Batch], list[Batch]]:
        def split(batch: Batch) -> list[Batch]:
            while True:
                try:
                    return partitioner.split(batch)
                except Exception as error:
                    if self._on_key_error is None:
                        raise KeySelectionFailed(key, partitioner.failed_at) from error
                    batch = self._without(batch, partitioner.failed_index, error)
                except BaseException as error:
                    raise KeySelectionFailed(key, partitioner.failed_at) from error

        return split

    def _without(self, batch: Batch, index: int, error: Exception) -> Batch:
        assert self._on_key_error is not None, "only then are records left out"
        times = batch.timestamps
        self._on_key_error(batch.records[index], None if times is None else times[index], error)
        kept = None if times is None else times[:index] + times[index + 1 :]
        return Batch(batch.records[:index] + batch.records[index + 1 :], kept)

    def _everywhere(self, batch: Batch) -> list[Batch]:
        return [batch] * len(self._receivers)

    def _deal(self, batch: Batch) -> list[Batch]:
        """Round robin by record over this sender's share of the receivers, going on where the last batch ended."""
        count, times = self._share, batch.timestamps
        parts = [Batch([], None)] * len(self._receivers)
        for offset in range(min(count, len(batch.records))):
            stamps = None if times is None else times[offset::count]
            parts[self._first + (self._turn + offset) % count] = Batch(batch.records[offset::count], stamps)
        self._turn = (self._turn + len(batch.records)) % count
        return parts


def _share(partitioning: Partitioning, subtask: int, senders: int, receivers: int) -> tuple[int, int]:
    """The first receiver that gets records, and how many in a row do."""
    if partitioning is Partitioning.GLOBAL:
        return 0, 1
    if partitioning is Partitioning.RESCALE:
        first = subtask * receivers // senders
        return first, max(1, (subtask + 1) * receivers // senders - first)
    return 0, receivers


def _whole(batch: Batch) -> list[Batch]:
    return [batch]

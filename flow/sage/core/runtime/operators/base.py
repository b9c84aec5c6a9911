"""The border between the runtime and an operator that keeps state, time or work in flight.

A task's chain is a tree of stages. Stateless neighbours (map, filter, flat_map, …) are one stage of generated code; an
`Operator` is a stage of its own and works on whole batches. Everything here is called in the task's own thread, one
call at a time; work in other threads comes back through `OperatorContext.mailbox`.

Order of calls: `open` (the state stores it gets are filled already when the job was restored) → any number of
`process`, `on_watermark`, `snapshot`, `notify_complete` → `finish` (the input has ended) → `close` (always).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sage.core.runtime.events import Batch

if TYPE_CHECKING:
    from sage.core.api.function.base_function import FunctionContext
    from sage.core.runtime.clock import Clock
    from sage.core.runtime.timers import TimerServices
    from sage.core.state.base import KeyedStateBackend, OperatorStateBackend

__all__ = ["Emitter", "Operator", "OperatorContext", "OperatorFactory"]


class Emitter:
    """Where an operator puts its results; the chain takes them out after each call.

    Hot operators append to `records` (and to `timestamps`, when `timed`) themselves. An operator emits either all its
    records with timestamps or none: `timed` is set before the first record.
    """

    __slots__ = ("events", "records", "side", "timed", "timestamps")

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.timestamps: list[int] = []
        self.timed = False
        self.side: dict[str, list[tuple[Any, int | None]]] = {}
        self.events: list[tuple[int, int | bool]] = []

    def emit(self, record: Any, timestamp: int | None = None) -> None:
        """One record to the next operator."""
        self.records.append(record)
        if self.timed:
            self.timestamps.append(0 if timestamp is None else timestamp)

    def output(self, tag: str, record: Any, timestamp: int | None = None) -> None:
        """One record to the side output `tag`; records for a tag that nobody reads are dropped."""
        self.side.setdefault(tag, []).append((record, timestamp))

    def watermark(self, timestamp: int) -> None:
        """Advance event time downstream, after the records emitted so far (only for operators that make watermarks)."""
        self.events.append((len(self.records), timestamp))

    def idle(self, is_idle: bool) -> None:
        """This stream is (no longer) idle: it does not hold back the watermark of whoever reads several."""
        self.events.append((len(self.records), is_idle))

    def drain(self) -> Batch:
        """What was emitted to the main output; the emitter is empty afterwards (side outputs and events apart)."""
        batch = Batch(self.records[:], self.timestamps[:] if self.timed else None)
        self.records.clear()
        self.timestamps.clear()
        return batch


@dataclass(slots=True)
class OperatorContext:
    """What one subtask of an operator works with.

    `keyed` exists on keyed streams: set its current key before touching keyed state. `key_selectors[port]` gives the
    key of a record of that input. `mailbox(call)` runs a call in the task's thread soon; callable from any thread, and
    what the call emits goes on at once. `wait(ready)` lets the task do such calls until `ready()` is true (an operator
    that must not take more input now); raises JobAborted.
    """

    function: FunctionContext
    out: Emitter
    clock: Clock
    timers: TimerServices
    mailbox: Callable[[Callable[[], None]], None]
    wait: Callable[[Callable[[], bool]], None]
    operator_state: OperatorStateBackend
    keyed: KeyedStateBackend | None = None
    key_selectors: tuple[Callable[[Any], Any] | None, ...] = ()
    side_outputs: frozenset[str] = frozenset()
    current_watermark: int = field(default=-(2**63))


class Operator:
    """One subtask of an operator. Subclasses override what they need; `open` must be called by overriders."""

    context: OperatorContext
    late_records = 0  # that came too late for this operator: dropped, or put to the side

    def open(self, context: OperatorContext) -> None:
        """Prepare; state stores are filled already when the job was restored."""
        self.context = context

    def process(self, batch: Batch, port: int) -> None:
        """Records of input `port`; results go to `context.out`."""
        raise NotImplementedError

    def on_watermark(self, watermark: int) -> int | None:
        """Event time (of all inputs together) has come to `watermark`; due event timers have fired already.

        Returns the watermark for those downstream: mostly the same; None: none now.
        """
        return watermark

    def on_status(self, idle: bool) -> bool | None:
        """All inputs have become idle, or no longer are. Returns the status for those downstream; None: none now."""
        return idle

    @property
    def pending(self) -> int:
        """Records that this operator has in work in other threads, and will emit by itself."""
        return 0

    @property
    def room(self) -> int:
        """How many records may come now; while it is 0 the task takes no input, but timers, checkpoints and what comes
        by `mailbox` go on. Most take any number."""
        return sys.maxsize

    def on_probe(self) -> None:
        """A LoopProbe has come by: everything in front of it has been processed."""

    def flush(self) -> None:
        """The stream pauses, or `buffer.timeout` is over: write out what is held back only to make fewer calls."""

    def prepare_snapshot(self, checkpoint_id: int) -> None:
        """Before the barrier goes on: emit what has to be in front of it (Flink's prepareSnapshotPreBarrier)."""

    def snapshot(self, checkpoint_id: int) -> None:
        """Bring everything that is kept in attributes into the state stores; the runtime snapshots those."""

    def notify_complete(self, checkpoint_id: int) -> None:
        """The checkpoint is complete everywhere: a transactional sink commits now."""

    def notify_aborted(self, checkpoint_id: int) -> None:
        """The checkpoint will not be completed."""

    def finish(self) -> None:
        """The input has ended and event time is at its end: emit what is left."""

    def close(self) -> None:
        """Let go of everything; also after a failure, also when `open` raised."""


class OperatorFactory(Protocol):
    """Makes an Operator for each subtask; plain data and picklable, because process mode sends it to a worker."""

    def __call__(self) -> Operator: ...

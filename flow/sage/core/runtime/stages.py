"""The stages of a chain: a tree in which records, watermarks and the end of the stream go down.

A `LoopStage` is a run of stateless neighbours in one generated function; an `OperatorStage` is an `Operator`. What a
stage emits goes into `Target`s: `StageLink`s to the stages below it and `Output`s to other tasks.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sage.core.api.function.call_origin import CallOrigin
from sage.core.graph.plan import PhysicalOperator
from sage.core.graph.spec import OperatorKind
from sage.core.runtime.events import (
    FINAL_WATERMARK,
    NO_WATERMARK,
    Batch,
    ControlEvent,
    LoopProbe,
    StreamStatus,
    Watermark,
)
from sage.core.runtime.mailbox import Mailbox
from sage.core.runtime.meter import Meter
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.output import Target
from sage.core.state.base import KeyedStateBackend, OperatorStateBackend

__all__ = ["ChainOperator", "OperatorStage", "Stage", "StageLink", "Tolerate", "copied"]


# Whether the stage goes on behind the record that failed; the batch has only that one, or is None.
Tolerate = Callable[["Stage", Exception, Batch | None], bool]


@dataclass(slots=True)
class ChainOperator:
    """One operator of a subtask: what it calls, what is fused below, which outputs it feeds, and its counters.

    Either `call` (generated code) or `operator` and `operator_context`. `stateful`: its function may ask for
    keyed state, so the current key must be set.
    """

    plan: PhysicalOperator
    call: Callable[..., Any] | None = None
    key: Callable[[Any], Any] | None = None
    operator: Operator | None = None
    operator_context: OperatorContext | None = None
    keyed: KeyedStateBackend | None = None
    operator_state: OperatorStateBackend | None = None
    stateful: bool = False
    origin: CallOrigin | None = None
    children: list[ChainOperator] = field(default_factory=list)
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    busy_s: float = 0.0
    watermark: int = NO_WATERMARK
    state_bytes: int = 0
    state_due: float = 0.0  # time.monotonic() when its size is to be looked up again

    @property
    def kind(self) -> OperatorKind:
        return self.plan.node.kind

    @property
    def late(self) -> int:
        """Records that came too late for it."""
        return 0 if self.operator is None else self.operator.late_records

    def walk(self) -> Iterator[ChainOperator]:
        """This operator and all that are fused below it, in the order in which they run."""
        yield self
        for child in self.children:
            yield from child.walk()


def copied(record: Any) -> Any:
    """A record that its receiver may change."""
    return record if type(record) in _UNCHANGING else copy.deepcopy(record)


_UNCHANGING = frozenset({int, float, complex, str, bytes, bool, type(None)})


class Stage(ABC):
    """A node of the tree."""

    operators: list[ChainOperator]
    targets: list[Target]

    @abstractmethod
    def process(self, batch: Batch, port: int) -> None:
        """Take the records through, in order; what comes out has been sent on. Raises what the functions raise."""

    @abstractmethod
    def event(self, event: ControlEvent) -> None:
        """A watermark, status or latency marker: here, then to everything below."""

    @abstractmethod
    def end(self, drained: bool) -> None:
        """The input has ended; finishes this stage, then those below."""

    def forward(self, event: ControlEvent) -> None:
        """To everything below, after all records so far."""
        for target in self.targets:
            target.event(event)

    def below(self) -> list[Stage]:
        """The stages that this one feeds."""
        return [target.stage for target in self.targets if isinstance(target, StageLink)]


class StageLink(Target):
    """From a stage to one below it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def send(self, batch: Batch) -> None:
        if self.buffer:
            self.flush()
        self.stage.process(batch, 0)

    def flush(self) -> None:
        if self.buffer:
            self.stage.process(self.drained(), 0)

    def event(self, event: ControlEvent) -> None:
        self.flush()
        self.stage.event(event)


class OperatorStage(Stage):
    """An `Operator` with its emitter. Calls of other threads come in by `call`."""

    def __init__(
        self,
        operator: ChainOperator,
        main: list[Target],
        sides: dict[str, list[Target]],
        meter: Meter,
        mailbox: Mailbox,
        *,
        copies: bool = False,
        tolerate: Tolerate | None = None,
    ) -> None:
        assert operator.operator is not None
        assert operator.operator_context is not None
        self.operators = [operator]
        self.targets = [*main, *(target for targets in sides.values() for target in targets)]
        self.operator = operator.operator
        self.context = operator.operator_context
        self._counters = operator
        self._main = main
        self._sides = sides
        self._meter = meter
        self._mailbox = mailbox
        self._copies = copies
        self._tolerate = tolerate
        self.context.mailbox = self._post
        self.context.wait = self._wait

    def process(self, batch: Batch, port: int) -> None:
        entered = self._meter.enter()
        try:
            if self._tolerate is None:
                self._counters.records_in += len(batch.records)
                self.operator.process(batch, port)
                self.drain()
            else:
                self._process_each(batch, port, self._tolerate)
        finally:
            self._counters.busy_s += self._meter.leave(entered)

    def _process_each(self, batch: Batch, port: int, tolerate: Tolerate) -> None:
        """Record by record, leaving out those at which the operator raises, with what they had put out."""
        out = self.context.out
        for index in range(len(batch.records)):
            self._counters.records_in += 1
            one = batch.cut(index, index + 1)
            try:
                self.operator.process(one, port)
            except Exception as error:
                if not tolerate(self, error, one):
                    raise
                out.drain()
                out.side.clear()
            self.drain()

    def event(self, event: ControlEvent) -> None:
        if isinstance(event, Watermark):
            forwarded = self._advance(event.timestamp)
            if forwarded is not None:
                self.forward(Watermark(forwarded))
        elif isinstance(event, StreamStatus):
            idle = self.operator.on_status(event.idle)
            self.drain()
            if idle is not None:
                self.forward(StreamStatus(idle))
        elif isinstance(event, LoopProbe):
            self._wait(lambda: self.operator.pending == 0)
            self.operator.on_probe()
            self.forward(event)
        else:
            self.forward(event)

    def end(self, drained: bool) -> None:
        if drained:  # those below hear of the end of event time when their turn comes
            self._advance(FINAL_WATERMARK)
            self.operator.finish()
            self.drain()
        for stage in self.below():
            stage.end(drained)

    def call(self, call: Callable[[], None]) -> None:
        """Run a call that came through the mailbox, and hand on what it emits."""
        entered = self._meter.enter()
        try:
            try:
                call()
            except Exception as error:
                if self._tolerate is None or not self._tolerate(self, error, None):
                    raise
            self.drain()
        finally:
            self._counters.busy_s += self._meter.leave(entered)

    def _post(self, call: Callable[[], None]) -> None:
        self._mailbox.post(partial(self.call, call), owner=self)

    def _wait(self, ready: Callable[[], bool]) -> None:
        if not ready():
            self.drain()
            self._mailbox.wait(self, ready)

    def drain(self) -> None:
        """Hand on what the operator has emitted, events at their places."""
        out = self.context.out
        if out.side:
            self._drain_sides()
        if not out.events:
            if out.records:
                self._send(out.drain())
            return
        events, out.events = out.events, []
        batch, sent = out.drain(), 0
        for position, event in events:
            self._send(batch.cut(sent, position))
            sent = position
            self.forward(StreamStatus(event) if isinstance(event, bool) else Watermark(event))
        self._send(batch.cut(sent))

    def _send(self, batch: Batch) -> None:
        if batch.records:
            self._counters.records_out += len(batch.records)
            for target in self._main:
                target.send(self._handed(batch))

    def _handed(self, batch: Batch) -> Batch:
        return Batch([copied(record) for record in batch.records], batch.timestamps) if self._copies else batch

    def _drain_sides(self) -> None:
        """Side outputs: records with timestamps and without in batches of their own."""
        sides, self.context.out.side = self.context.out.side, {}
        for tag, records in sides.items():
            for target in self._sides.get(tag, ()):
                for batch in _side_batches(records):
                    target.send(self._handed(batch))

    def _advance(self, watermark: int) -> int | None:
        """Event timers fire, then the operator hears of it. Returns what those below are to hear.

        Event time never goes back.
        """
        if watermark <= self.context.current_watermark:
            return None
        self.context.current_watermark = self._counters.watermark = watermark
        entered = self._meter.enter()
        try:
            self.context.timers.advance(watermark)
            forwarded = self.operator.on_watermark(watermark)
            self.drain()
        finally:
            self._counters.busy_s += self._meter.leave(entered)
        return forwarded


def _side_batches(records: list[tuple[Any, int | None]]) -> Iterator[Batch]:
    start = 0
    while start < len(records):
        timed = records[start][1] is not None
        stop = start
        while stop < len(records) and (records[stop][1] is not None) is timed:
            stop += 1
        part = records[start:stop]
        yield Batch([r for r, _ in part], [t for _, t in part if t is not None] if timed else None)
        start = stop

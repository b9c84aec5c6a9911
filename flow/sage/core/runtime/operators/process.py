"""Runs ProcessFunction and KeyedProcessFunction (Flink's ProcessOperator and KeyedProcessOperator)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.api.function.contexts import KeyedProcessContext, OnTimerContext, ProcessContext
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import (
    NO_TIME,
    BatchCollector,
    FunctionOperator,
    begin,
    select_keys,
    settle,
)
from sage.core.runtime.timers import TimerService

__all__ = ["KeyedProcessOperator", "ProcessFactory", "ProcessOperator", "TimerCalls"]

Call = Callable[[Any, Any, Any], Any]


@dataclass(slots=True, frozen=True)
class ProcessFactory:
    """Makes the operator of `DataStream.process` and `KeyedStream.process`."""

    function: FunctionSpec
    keyed: bool

    def __call__(self) -> Operator:
        return KeyedProcessOperator(self.function) if self.keyed else ProcessOperator(self.function)


class ProcessOperator(FunctionOperator):
    """Without keys: no timers."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        self._collector = BatchCollector()
        super().open(context)
        self._call: Call = self.bound.call
        self._seen: Any = ProcessContext(context)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out = self.context.out
        begin(out, batch)
        self._collector.point_to(out)
        if batch.timestamps is None:
            untimed(self._call, self._seen, self._collector, batch.records)
            settle(out)
        else:
            timed(self._call, self._seen, self._collector, batch.records, batch.timestamps, out.records, out.timestamps)


class TimerCalls:
    """Calls a function's `on_timer` for due timers: the part that keyed process operators share."""

    def __init__(self, context: OperatorContext, collector: BatchCollector, seen: OnTimerContext) -> None:
        self._context = context
        self._collector = collector
        self._seen = seen
        self.on_timer: Call | None = None

    def service(self) -> TimerService:
        """The operator's timers; what is due calls `on_timer`."""
        return self._context.timers.service("user", self._event_time, self._processing_time)

    def _event_time(self, timestamp: int, key: Any, namespace: Any) -> None:
        out = self._context.out
        if not out.timed:  # the first one after a restore, or on a stream without times
            out.timed = True
            settle(out)
        self._fire(timestamp, "event_time", timestamp)

    def _processing_time(self, timestamp: int, key: Any, namespace: Any) -> None:
        self._fire(timestamp, "processing_time", NO_TIME)

    def _fire(self, timestamp: int, domain: str, time: int) -> None:
        if self.on_timer is None:
            return
        out, seen = self._context.out, self._seen
        self._collector.point_to(out)
        seen._time, seen._domain = timestamp, domain
        self.on_timer(timestamp, seen, self._collector)
        if out.timed:
            out.timestamps.extend([time] * (len(out.records) - len(out.timestamps)))


class KeyedProcessOperator(FunctionOperator):
    """With keyed state, and timers where the function has `on_timer`."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        assert context.keyed is not None, "a keyed stream has keyed state"
        self._keyed = context.keyed
        self._selector = context.key_selectors[0]
        self._collector = BatchCollector()
        seen = OnTimerContext(context)
        calls = TimerCalls(context, self._collector, seen)
        timers = calls.service()
        seen.use_timers(timers)
        self._seen = KeyedProcessContext(context, timers)
        super().open(context)
        self._call: Call = self.bound.call
        calls.on_timer = getattr(self.bound.target, "on_timer", None)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        assert self._selector is not None, "a keyed stream has a key selector"
        out = self.context.out
        begin(out, batch)
        self._collector.point_to(out)
        keys = select_keys(self._selector, batch.records)
        if batch.timestamps is None:
            untimed_keyed(self._call, self._seen, self._collector, batch.records, keys, self._keyed)
            settle(out)
        else:
            timed_keyed(self._call, self._seen, self._collector, batch, keys, self._keyed, out.records, out.timestamps)


def untimed(call: Call, seen: Any, collector: BatchCollector, records: list[Any]) -> None:
    """The loop without times and keys."""
    seen._time = None
    for record in records:
        call(record, seen, collector)


def timed(
    call: Call,
    seen: Any,
    collector: BatchCollector,
    records: list[Any],
    times: list[int],
    emitted: list[Any],
    timestamps: list[int],
) -> None:
    """The loop with times: what a record puts out has its time."""
    count = len(emitted)
    for record, time in zip(records, times, strict=True):
        seen._time = time
        call(record, seen, collector)
        if len(emitted) != count:
            timestamps.extend([time] * (len(emitted) - count))
            count = len(emitted)


def untimed_keyed(
    call: Call, seen: Any, collector: BatchCollector, records: list[Any], keys: list[Any], keyed: Any
) -> None:
    """The loop without times: the state's key is set before each call."""
    seen._time = None
    for record, key in zip(records, keys, strict=True):
        keyed.key = key
        call(record, seen, collector)


def timed_keyed(
    call: Call,
    seen: Any,
    collector: BatchCollector,
    batch: Batch,
    keys: list[Any],
    keyed: Any,
    emitted: list[Any],
    timestamps: list[int],
) -> None:
    """The loop with times and keys."""
    assert batch.timestamps is not None, "the caller looked"
    count = len(emitted)
    for record, time, key in zip(batch.records, batch.timestamps, keys, strict=True):
        keyed.key = key
        seen._time = time
        call(record, seen, collector)
        if len(emitted) != count:
            timestamps.extend([time] * (len(emitted) - count))
            count = len(emitted)

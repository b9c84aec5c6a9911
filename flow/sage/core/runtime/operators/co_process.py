"""Operators of two inputs: co-map, co-flat-map, co-process (Flink's CoStreamMap, CoStreamFlatMap, CoProcessOperator).

The records of input 0 go to the function's first method, those of input 1 to its second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.api.function.contexts import KeyedProcessContext, OnTimerContext, ProcessContext
from sage.core.graph.spec import FunctionKind, FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import (
    NO_TIME,
    BatchCollector,
    FunctionOperator,
    begin,
    many,
    select_keys,
    settle,
)
from sage.core.runtime.operators.process import TimerCalls, timed, timed_keyed, untimed, untimed_keyed

__all__ = ["CoFactory", "CoFlatMapOperator", "CoMapOperator", "CoProcessOperator", "KeyedCoProcessOperator"]


@dataclass(slots=True, frozen=True)
class CoFactory:
    """Makes the operator of a function of two streams; `functions` is one object, or one callable for each input."""

    kind: FunctionKind
    functions: tuple[FunctionSpec, ...]

    def __call__(self) -> Operator:
        return _OPERATORS[self.kind](self.functions)


class _TwoCalls(FunctionOperator):
    """One call for each input: two methods of an object, or two callables."""

    methods: tuple[str, str]

    def __init__(self, functions: tuple[FunctionSpec, ...]) -> None:
        super().__init__(functions[0])
        self._second = functions[1] if len(functions) > 1 else None

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        if self._second is None:
            self.calls = tuple(getattr(self.bound.target, method) for method in self.methods)
        else:
            same = self._second is self._spec  # one function for both streams
            self.calls = (self.bound.call, self.bound.call if same else self._bind(self._second, self.function).call)


class CoMapOperator(_TwoCalls):
    """One record in, one out."""

    methods = ("map1", "map2")

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out, call = self.context.out, self.calls[port]
        begin(out, batch)
        append = out.records.append
        keys = _keys(self.context, batch, port)
        if keys is None:
            for record in batch.records:
                append(call(record))
        else:
            keyed: Any = self.context.keyed
            for record, keyed.key in zip(batch.records, keys, strict=True):
                append(call(record))
        if out.timed:
            times = batch.timestamps
            out.timestamps.extend([NO_TIME] * len(batch.records) if times is None else times)


class CoFlatMapOperator(_TwoCalls):
    """One record in, any number out."""

    methods = ("flat_map1", "flat_map2")

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out, call = self.context.out, self.calls[port]
        begin(out, batch)
        emitted, timestamps = out.records, out.timestamps
        keyed: Any = self.context.keyed
        times = batch.timestamps or [NO_TIME] * len(batch.records)
        keys = _keys(self.context, batch, port) or [None] * len(batch.records)
        for record, time, key in zip(batch.records, times, keys, strict=True):
            if keyed is not None:
                keyed.key = key
            emitted.extend(many(call(record)))
            if out.timed:
                timestamps.extend([time] * (len(emitted) - len(timestamps)))


def _keys(context: OperatorContext, batch: Batch, port: int) -> list[Any] | None:
    selector = context.key_selectors[port] if context.key_selectors else None
    return None if selector is None else select_keys(selector, batch.records)


class CoProcessOperator(_TwoCalls):
    """With a context and a collector, without keys."""

    methods = ("process_element1", "process_element2")

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        self._collector = BatchCollector()
        self._seen = ProcessContext(context)
        super().open(context)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out, call = self.context.out, self.calls[port]
        begin(out, batch)
        self._collector.point_to(out)
        if batch.timestamps is None:
            untimed(call, self._seen, self._collector, batch.records)
            settle(out)
        else:
            timed(call, self._seen, self._collector, batch.records, batch.timestamps, out.records, out.timestamps)


class KeyedCoProcessOperator(_TwoCalls):
    """With keyed state and timers; either input's record sets the key."""

    methods = ("process_element1", "process_element2")

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        assert context.keyed is not None, "both streams are keyed"
        self._keyed = context.keyed
        self._collector = BatchCollector()
        fired = OnTimerContext(context)
        calls = TimerCalls(context, self._collector, fired)
        timers = calls.service()
        fired.use_timers(timers)
        self._seen = KeyedProcessContext(context, timers)
        super().open(context)
        calls.on_timer = getattr(self.bound.target, "on_timer", None)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        selector = self.context.key_selectors[port]
        assert selector is not None, "both streams are keyed"
        out, call = self.context.out, self.calls[port]
        begin(out, batch)
        self._collector.point_to(out)
        keys = select_keys(selector, batch.records)
        if batch.timestamps is None:
            untimed_keyed(call, self._seen, self._collector, batch.records, keys, self._keyed)
            settle(out)
        else:
            timed_keyed(call, self._seen, self._collector, batch, keys, self._keyed, out.records, out.timestamps)


_OPERATORS: dict[FunctionKind, Callable[[tuple[FunctionSpec, ...]], Operator]] = {
    FunctionKind.CO_MAP: CoMapOperator,
    FunctionKind.CO_FLAT_MAP: CoFlatMapOperator,
    FunctionKind.CO_PROCESS: CoProcessOperator,
    FunctionKind.KEYED_CO_PROCESS: KeyedCoProcessOperator,
}

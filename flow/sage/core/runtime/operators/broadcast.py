"""Broadcast process operators: input 0 is the stream, input 1 the broadcast one (Flink's Broadcast State Pattern).

Broadcast state is kept as operator state of the mode `broadcast`: equal in all subtasks, so any one's snapshot will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage.core.api.function.broadcast_functions import (
    BroadcastContext,
    KeyedBroadcastContext,
    KeyedReadOnlyContext,
    OnTimerReadOnlyContext,
    ReadOnlyContext,
)
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import BatchCollector, FunctionOperator, begin, select_keys, settle
from sage.core.runtime.operators.process import TimerCalls, timed, timed_keyed, untimed, untimed_keyed

__all__ = ["BroadcastFactory", "BroadcastProcessOperator", "KeyedBroadcastProcessOperator"]

_STATE = "broadcast:"


@dataclass(slots=True, frozen=True)
class BroadcastFactory:
    """Makes the operator; `states` are the names of the broadcast states."""

    function: FunctionSpec
    states: tuple[str, ...]
    keyed: bool

    def __call__(self) -> Operator:
        kind = KeyedBroadcastProcessOperator if self.keyed else BroadcastProcessOperator
        return kind(self.function, self.states)


class BroadcastProcessOperator(FunctionOperator):
    """Without keys."""

    def __init__(self, function: FunctionSpec, states: tuple[str, ...]) -> None:
        super().__init__(function)
        self._maps: dict[str, dict[Any, Any]] = {name: {} for name in states}

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        for name, entries in self._maps.items():
            entries.update((key, value) for key, value in context.operator_state.get(_STATE + name, "broadcast"))
        self._collector = BatchCollector()
        self._contexts(context)
        super().open(context)
        target = self.bound.target
        self._calls = (target.process_element, target.process_broadcast_element)

    def _contexts(self, context: OperatorContext) -> None:
        self._reading: Any = ReadOnlyContext(context, self._maps)
        self._writing: Any = BroadcastContext(context, self._maps)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out = self.context.out
        begin(out, batch)
        self._collector.point_to(out)
        if port == 0:
            self._elements(batch)
        else:
            self._run(batch, self._calls[1], self._writing)

    def snapshot(self, checkpoint_id: int) -> None:
        """See Operator."""
        for name, entries in self._maps.items():
            self.context.operator_state.put(_STATE + name, [list(entry) for entry in entries.items()], "broadcast")

    def _elements(self, batch: Batch) -> None:
        self._run(batch, self._calls[0], self._reading)

    def _run(self, batch: Batch, call: Any, seen: Any) -> None:
        out = self.context.out
        if batch.timestamps is None:
            untimed(call, seen, self._collector, batch.records)
            settle(out)
        else:
            timed(call, seen, self._collector, batch.records, batch.timestamps, out.records, out.timestamps)


class KeyedBroadcastProcessOperator(BroadcastProcessOperator):
    """The stream of input 0 is keyed: with keyed state and timers."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        self._timer_calls.on_timer = getattr(self.bound.target, "on_timer", None)

    def _contexts(self, context: OperatorContext) -> None:
        fired = OnTimerReadOnlyContext(context, self._maps)
        self._timer_calls = TimerCalls(context, self._collector, fired)
        timers = self._timer_calls.service()
        fired.use_timers(timers)
        self._reading = KeyedReadOnlyContext(context, self._maps, timers)
        self._writing = KeyedBroadcastContext(context, self._maps)

    def _elements(self, batch: Batch) -> None:
        selector, keyed, out = self.context.key_selectors[0], self.context.keyed, self.context.out
        assert selector is not None, "the stream is keyed"
        keys = select_keys(selector, batch.records)
        if batch.timestamps is None:
            untimed_keyed(self._calls[0], self._reading, self._collector, batch.records, keys, keyed)
            settle(out)
        else:
            timed_keyed(self._calls[0], self._reading, self._collector, batch, keys, keyed, out.records, out.timestamps)

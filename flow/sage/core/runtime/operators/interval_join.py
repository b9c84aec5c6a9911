"""Joins each record of one stream with those of another whose time lies in an interval around its own.

After Flink's IntervalJoinOperator. The records of a key stand in state in order of time, with one timer for the
earliest that may go; Flink has one for each record, and removes them at the same watermarks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

from sage.core.api.function.contexts import ProcessContext
from sage.core.graph.spec import FunctionKind, FunctionSpec
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import BatchCollector, FunctionOperator, select_keys
from sage.core.runtime.operators.windows import restore_watermark, save_watermark, times_of

__all__ = ["IntervalJoinContext", "IntervalJoinFactory"]

Buffer = tuple[list[int], list[Any]]  # times, ascending, and the records of these times

_LEFT, _RIGHT = 0, 1


@dataclass(slots=True, frozen=True)
class IntervalJoinFactory:
    """Makes the operator of `interval_join`. The bounds (ms, both included) are those of right time - left time;
    `function` is of kind PROCESS_JOIN or JOIN; `late` names the side outputs of late records, left and right."""

    lower: int
    upper: int
    function: FunctionSpec
    late: tuple[str | None, str | None] = (None, None)

    def __call__(self) -> Operator:
        return _IntervalJoin(self)


class IntervalJoinContext(ProcessContext):
    """What a ProcessJoinFunction sees beside a pair."""

    __slots__ = ("left_timestamp", "right_timestamp")

    def __init__(self, operator: OperatorContext) -> None:
        super().__init__(operator)
        self.left_timestamp = NO_WATERMARK
        self.right_timestamp = NO_WATERMARK

    def at(self, left: int, right: int) -> IntervalJoinContext:
        """Stand at a pair: its time is the later one's."""
        self.left_timestamp, self.right_timestamp, self._time = left, right, max(left, right)
        return self


class _IntervalJoin(FunctionOperator):
    def __init__(self, factory: IntervalJoinFactory) -> None:
        super().__init__(factory.function)
        self._pairwise = factory.function.kind is FunctionKind.JOIN
        # by port: where partners lie from a record's time, and how long after its time it may still get one
        self._reach = ((factory.lower, factory.upper), (-factory.upper, -factory.lower))
        self._keep = (max(factory.upper, 0), max(-factory.lower, 0))
        self._late = factory.late
        self.late_records = 0

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        assert context.keyed is not None, "both streams are keyed"
        self._keyed = context.keyed
        self._tables = tuple(context.keyed.table(f"interval-{side}", "times, records") for side in ("left", "right"))
        self._timers = context.timers.service("interval-join", self._expired, None)
        self._collector = BatchCollector()
        self._seen = IntervalJoinContext(context)
        context.out.timed = True
        super().open(context)
        restore_watermark(context)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        records, selector = batch.records, self.context.key_selectors[port]
        if not records:
            return
        assert selector is not None, "both streams are keyed"
        times = times_of(batch, event_time=True)
        watermark = self.context.current_watermark
        buffers: dict[Any, tuple[Buffer, Buffer, int | None]] = {}
        self._collector.point_to(self.context.out)
        for record, key, time in zip(records, select_keys(selector, records), times, strict=True):
            if time < watermark:
                self._skip(record, time, port)
                continue
            self._keyed.key = key
            held = buffers.get(key)
            if held is None:
                held = buffers[key] = self._load(port)
            own, other, _ = held
            place = bisect_right(own[0], time)
            own[0].insert(place, time)
            own[1].insert(place, record)
            if other[0]:
                self._join(record, time, other, port)
        for key, (own, _, earliest) in buffers.items():
            self._keyed.key = key
            self._tables[port].put(own)
            if earliest is None or own[0][0] < earliest:
                self._timers.register_event_time(own[0][0] + self._keep[port], key, port)

    def snapshot(self, checkpoint_id: int) -> None:
        """See Operator."""
        save_watermark(self.context)

    def _load(self, port: int) -> tuple[Buffer, Buffer, int | None]:
        """The key's records of both streams, and the earliest time of this port's."""
        own: Buffer = self._tables[port].get() or ([], [])
        other: Buffer = self._tables[1 - port].get() or ([], [])
        return own, other, own[0][0] if own[0] else None

    def _join(self, record: Any, time: int, other: Buffer, port: int) -> None:
        times, partners = other
        low, high = self._reach[port]
        out, call, seen = self.context.out, self.bound.call, self._seen
        for index in range(bisect_left(times, time + low), bisect_right(times, time + high)):
            left, right = (record, partners[index]) if port == _LEFT else (partners[index], record)
            if self._pairwise:
                out.records.append(call(left, right))
            else:
                at = seen.at(time, times[index]) if port == _LEFT else seen.at(times[index], time)
                returned = call(left, right, at, self._collector)
                if returned is not None:
                    out.records.extend(returned)
            out.timestamps.extend([max(time, times[index])] * (len(out.records) - len(out.timestamps)))

    def _skip(self, record: Any, time: int, port: int) -> None:
        self.late_records += 1
        tag = self._late[port]
        if tag is not None:
            self.context.out.output(tag, record, time)

    def _expired(self, timestamp: int, key: Any, namespace: Any) -> None:
        """Remove what can have no partner any more; a timer for what is left."""
        port: int = namespace
        buffer: Buffer | None = self._tables[port].get()
        if buffer is None:
            return
        times, records = buffer
        gone = bisect_right(times, self.context.current_watermark - self._keep[port])
        if gone == len(times):
            self._tables[port].clear()
            return
        self._tables[port].put((times[gone:], records[gone:]))
        self._timers.register_event_time(times[gone] + self._keep[port], key, port)

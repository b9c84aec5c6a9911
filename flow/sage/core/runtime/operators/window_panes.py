"""Built-in aggregates over aligned event-time windows with the default trigger: the quick way through `windows`.

What comes out is what WindowOperator puts out, in the same order. A batch is taken slice by slice (a slice is a window,
or the part of overlapping windows between two starts): the accumulators of all keys of a slice stand in one dict, into
which the records of a batch are folded at once; the timers of new keys are set together. When a window fires, the
accumulators of its slices are merged (as in the slicing windows of Flink's SQL). State sees an accumulator when a
checkpoint is taken, or when too many wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress, islice
from typing import Any

from sage.core.api.windows.assigners import SlidingEventTimeWindows, TumblingEventTimeWindows
from sage.core.api.windows.types import TimeWindow, WindowResult
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import select_keys
from sage.core.runtime.operators.window_aggregates import BuiltinAggregate, Mean
from sage.core.runtime.operators.windows import WindowSpec, restore_watermark, save_watermark, times_of
from sage.core.runtime.timer_heap import HeapTimerService

__all__ = ["MOST_SLICES", "PaneWindowOperator", "Slice"]

MOST_SLICES = 64  # of a window: each key of a slice has a timer for each of its windows
FEW = 8  # slices in a batch that are picked out one after the other
DIRTY = 65_536  # accumulators of a slice that state has not seen, before they are written
CACHED = 1_000_000  # accumulators in all, before state keeps them alone


class Slice:
    """The accumulators of one slice. `whole`: of all its keys; otherwise state may know more."""

    __slots__ = ("accumulators", "dirty", "namespace", "stored", "whole")

    def __init__(self, namespace: tuple[int, int], accumulators: dict[Any, Any], *, whole: bool) -> None:
        self.namespace = namespace
        self.accumulators = accumulators
        self.dirty: set[Any] = set()  # keys whose accumulator state has not seen
        self.stored: set[Any] = set()  # keys that state has
        self.whole = whole


class PaneWindowOperator(Operator):
    """Tumbling and sliding windows in event time (the size a multiple of the slide), a built-in aggregate, the default
    trigger, no evictor."""

    def __init__(self, spec: WindowSpec, aggregate: BuiltinAggregate) -> None:
        assigner = spec.assigner
        assert isinstance(assigner, (TumblingEventTimeWindows, SlidingEventTimeWindows)), "the factory looked"
        self._size, self._slide, self._offset = assigner.size, assigner.slide, assigner.offset
        self._aggregate = aggregate
        self._lateness = spec.lateness
        self._late = spec.late
        self._slices: dict[int, Slice] = {}  # by start
        self._cached = 0
        self.late_records = 0  # dropped, or put to the side

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "windows are keyed"
        selector = context.key_selectors[0]
        assert selector is not None, "windows are keyed"
        self._selector = selector
        self._keyed = context.keyed
        schema = "aggregate" if self._size == self._slide else f"slices of {self._slide} ms"
        self._table = context.keyed.table("window-contents", schema)
        timers = context.timers.service("windows", None, None)
        assert isinstance(timers, HeapTimerService), "it takes many at once"
        self._timers = timers
        timers.on_event_times = self._due
        latest = timers.latest_event_time
        self._restored_until = NO_WATERMARK if latest is None else latest
        context.out.timed = True
        restore_watermark(context)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        records = batch.records
        if not records:
            return
        times = times_of(batch, event_time=True)
        keys = select_keys(self._selector, records)
        first, last = self._start(min(times)), self._start(max(times))
        fresh: dict[int, list[Any]] = {}
        if first + self._slide - 1 <= self.context.current_watermark:
            self._with_ended(keys, records, times, fresh)
        elif first == last:
            fresh[first] = self._fold(first, keys, records)
        else:
            self._split(keys, records, times, first, last, fresh)
        self._register(fresh, keys, times)
        if self._cached > CACHED:
            self._let_go()

    def snapshot(self, checkpoint_id: int) -> None:
        """See Operator."""
        for held in self._slices.values():
            self._write(held)
        save_watermark(self.context)

    def _start(self, time: int) -> int:
        """The start of the slice that holds a time."""
        return time - (time - self._offset) % self._slide

    def _split(
        self,
        keys: list[Any],
        records: list[Any],
        times: list[int],
        first: int,
        last: int,
        fresh: dict[int, list[Any]],
    ) -> None:
        """Records of several slices."""
        slide = self._slide
        if (last - first) // slide < FEW:
            for start in range(first, last + slide, slide):
                end = start + slide
                inside = [start <= time < end for time in times]
                fresh[start] = self._fold(start, list(compress(keys, inside)), list(compress(records, inside)))
            return
        offset = self._offset
        parts: dict[int, tuple[list[Any], list[Any]]] = {}
        for key, record, time in zip(keys, records, times, strict=True):
            start = time - (time - offset) % slide
            part = parts.get(start)
            if part is None:
                part = parts[start] = ([], [])
            part[0].append(key)
            part[1].append(record)
        for start, part in parts.items():
            fresh[start] = self._fold(start, *part)

    def _fold(self, start: int, keys: list[Any], records: list[Any]) -> list[Any]:
        """Records of one slice, of which no window has ended; returns the keys that are new there."""
        if not keys:
            return []
        held = self._slice(start)
        accumulators = held.accumulators
        if not held.whole:
            self._fetch(held, keys)
        count = len(accumulators)
        self._aggregate.extend(accumulators, keys, records)
        held.dirty.update(keys)
        if len(held.dirty) > DIRTY:
            self._write(held)
        added = len(accumulators) - count
        self._cached += added
        return list(islice(reversed(accumulators), added))[::-1] if added else []

    def _with_ended(self, keys: list[Any], records: list[Any], times: list[int], fresh: dict[int, list[Any]]) -> None:
        """A batch with records of windows that have ended: these are late, or fire at once."""
        watermark, ahead = self.context.current_watermark, self._slide - 1
        ended = [self._start(time) + ahead <= watermark for time in times]
        for key, record, time in compress(zip(keys, records, times, strict=True), ended):
            start = self._start(time)
            if start + self._size - 1 + self._lateness <= watermark:
                self.late_records += 1
                if self._late is not None:
                    self.context.out.output(self._late, record, time)
                continue
            fresh.setdefault(start, []).extend(self._fold(start, [key], [record]))
            for begin in range(start, start - self._size, -self._slide):
                end = begin + self._size
                if end - 1 <= watermark < end - 1 + self._lateness:
                    self._fire((begin, end), (key,))
        if not all(ended):
            rest = [not past for past in ended]
            times = list(compress(times, rest))
            first, last = self._start(min(times)), self._start(max(times))
            self._split(list(compress(keys, rest)), list(compress(records, rest)), times, first, last, fresh)

    def _register(self, fresh: dict[int, list[Any]], keys: list[Any], times: list[int]) -> None:
        """Timers for the keys that are new in their slices: in the order of the records, however these were batched."""
        filled = [(start, new) for start, new in fresh.items() if new]
        if len(filled) <= 1 or self._size == self._slide:
            for start, new in filled:
                self._set_timers(start, new)
            return
        waiting = {start: set(new) for start, new in filled}
        windows: dict[int, list[Any]] = {}
        for key, time in zip(keys, times, strict=True):
            start = self._start(time)
            new_here = waiting.get(start)
            if new_here and key in new_here:
                new_here.remove(key)
                for begin in range(start, start - self._size, -self._slide):
                    windows.setdefault(begin, []).append(key)
        for begin, new in windows.items():
            self._set_timer(begin, new)

    def _set_timers(self, start: int, keys: list[Any]) -> None:
        for begin in range(start, start - self._size, -self._slide):
            self._set_timer(begin, keys)

    def _set_timer(self, begin: int, keys: list[Any]) -> None:
        """The timers of the window that begins there, for some keys."""
        watermark, lateness = self.context.current_watermark, self._lateness
        window, last = (begin, begin + self._size), begin + self._size - 1
        if last > watermark:
            self._timers.register_event_times(last, keys, window)
        if lateness and last + lateness > watermark:
            self._timers.register_event_times(last + lateness, keys, window)

    def _due(self, time: int, bucket: Any) -> None:
        """A window ends, or its lateness does, for all keys that it has."""
        for namespace, keys in bucket.items():
            last = namespace[1] - 1
            if time == last:
                self._fire(namespace, keys)
            if time == last + self._lateness:
                self._remove(namespace[0], keys)

    def _fire(self, namespace: tuple[int, int], keys: Iterable[Any]) -> None:
        window, new = TimeWindow(*namespace), tuple.__new__
        values = self._values(namespace, keys)
        if isinstance(self._aggregate, Mean):
            values = map(self._aggregate.get_result, values)
        results = [new(WindowResult, (key, window, value)) for key, value in zip(keys, values, strict=True)]
        out = self.context.out
        out.records += results
        out.timestamps += [window.end - 1] * len(results)

    def _values(self, namespace: tuple[int, int], keys: Iterable[Any]) -> Iterable[Any]:
        """The accumulators of these keys for a window."""
        slices = [self._slice(start) for start in range(namespace[0], namespace[1], self._slide)]
        for held in slices:
            if not held.whole:
                self._fetch(held, keys)
        if len(slices) == 1:
            return map(slices[0].accumulators.__getitem__, keys)
        parts = [held.accumulators for held in slices if held.accumulators]
        values = list(map(parts[0].get, keys))
        for part in parts[1:]:
            values = self._aggregate.merge_all(values, map(part.get, keys))
        return values

    def _remove(self, start: int, keys: Iterable[Any]) -> None:
        """The last window of a slice is gone."""
        held = self._slices.pop(start, None)
        if held is not None:
            self._cached -= len(held.accumulators)
        for key in held.stored if held is not None and held.whole else keys:
            self._keyed.key = key
            self._table.clear((start, start + self._slide))

    def _slice(self, start: int) -> Slice:
        held = self._slices.get(start)
        if held is None:
            whole = start > self._restored_until
            held = self._slices[start] = Slice((start, start + self._slide), self._aggregate.new(), whole=whole)
        return held

    def _fetch(self, held: Slice, keys: Iterable[Any]) -> None:
        """Bring what state has of these keys into the slice."""
        accumulators = held.accumulators
        for key in [key for key in dict.fromkeys(keys) if key not in accumulators]:
            self._keyed.key = key
            stored = self._table.get(held.namespace)
            if stored is not None:
                accumulators[key] = stored
                held.stored.add(key)
                self._cached += 1

    def _write(self, held: Slice) -> None:
        keyed, put, namespace, accumulators = self._keyed, self._table.put, held.namespace, held.accumulators
        for key in held.dirty:
            keyed.key = key
            put(accumulators[key], namespace)
        held.stored |= held.dirty
        held.dirty.clear()

    def _let_go(self) -> None:
        """Too many accumulators: state keeps them until they are needed."""
        for held in self._slices.values():
            self._write(held)
            held.accumulators.clear()
            held.stored.clear()
            held.whole = False
        self._cached = 0

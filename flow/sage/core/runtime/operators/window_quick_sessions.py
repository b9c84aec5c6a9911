"""Event-time sessions with the default trigger: what MergingWindowOperator does, with one look at state and timers for
each key and batch, in place of one for each record. A key's sessions stand together in state, in order of time: as they
neither overlap nor touch, those that a record joins are neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from sage.core.api.windows.assigners import EventTimeSessionWindows
from sage.core.api.windows.types import FOREVER, TimeWindow
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec
from sage.core.runtime.timer_heap import HeapTimerService

__all__ = ["SessionWindowOperator"]

Window = tuple[int, int]
Stored = tuple[list[int], list[int], list[Any]]  # starts, ends and contents of a key's sessions


class _Sessions:
    """The sessions of one key while a batch is processed. `moves`: windows that are new or have grown, each with the
    number of the record that last changed it and the window that it was before the batch (None: none)."""

    __slots__ = ("contents", "ends", "freed", "moves", "starts")

    def __init__(self, stored: Stored) -> None:
        self.starts, self.ends, self.contents = stored
        self.moves: dict[Window, tuple[int, Window | None]] = {}
        self.freed: list[Window] = []  # windows from before the batch that became part of others

    def insert(self, place: int, start: int, end: int, contents: Any, number: int) -> None:
        """A new session."""
        self.starts.insert(place, start)
        self.ends.insert(place, end)
        self.contents.insert(place, contents)
        self.moves[start, end] = (number, None)

    def move(self, place: int, start: int, end: int, number: int) -> None:
        """The session's window has become another."""
        old = (self.starts[place], self.ends[place])
        _, before = self.moves.pop(old, (number, old))
        self.starts[place], self.ends[place] = start, end
        self.moves[start, end] = (number, before)

    def remove(self, first: int, last: int) -> None:
        """Sessions that became part of another one."""
        for old in zip(self.starts[first:last], self.ends[first:last], strict=True):
            _, before = self.moves.pop(old, (0, old))
            if before is not None:
                self.freed.append(before)
        del self.starts[first:last], self.ends[first:last], self.contents[first:last]


class SessionWindowOperator(WindowOperator):
    """EventTimeSessionWindows, the default trigger, no evictor."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        assert isinstance(spec.assigner, EventTimeSessionWindows), "the factory looked"
        self._sessions: EventTimeSessionWindows[Any] = spec.assigner

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert isinstance(self._timers, HeapTimerService), "it takes many at once"
        self._timers.on_event_times = self._ended
        self._stored = self._keyed.table("sessions", self._windows.contents.kind)

    def _take(self, records: list[Any], elements: list[Any], keys: list[Any], times: list[int]) -> None:
        touched: dict[Any, _Sessions] = {}
        gap, gap_of = self._sessions.gap, self._sessions.gap_of
        watermark, lateness = self.context.current_watermark, self._windows.lateness
        first, add = self._folding.first, self._folding.add
        for number, (record, key, time) in enumerate(zip(records, keys, times, strict=True)):
            held = touched.get(key)
            if held is None:
                self._keyed.key = key
                held = touched[key] = _Sessions(self._stored.get() or ([], [], []))
            end = time + (gap or gap_of(record))
            place = bisect_left(held.ends, time)
            if place == len(held.ends) or held.starts[place] > end:
                if end - 1 + lateness <= watermark:
                    self._skipped(record, time)
                    continue
                held.insert(place, time, end, first(record), number)
            else:
                self._join(held, place, time, end, number)
                held.contents[place] = add(record, held.contents[place])
            if held.ends[place] - 1 <= watermark:
                self._keyed.key = key
                window = TimeWindow(held.starts[place], held.ends[place])
                self._output.emit(key, window, window, held.contents[place])
        self._settle_batch(touched)

    def _join(self, held: _Sessions, place: int, start: int, end: int, number: int) -> None:
        """Let the session at `place`, and those after it that the record's own window touches, hold that window."""
        starts, ends = held.starts, held.ends
        stop = place + 1
        while stop < len(starts) and starts[stop] <= end:
            stop += 1
        low, high = min(start, starts[place]), max(end, ends[stop - 1])
        if stop > place + 1:
            for other in held.contents[place + 1 : stop]:
                held.contents[place] = self._folding.merge(held.contents[place], other)
            held.remove(place + 1, stop)
        if (low, high) != (starts[place], ends[place]):
            held.move(place, low, high, number)

    def _settle_batch(self, touched: dict[Any, _Sessions]) -> None:
        """State and timers of all that the batch has touched; timers in the order in which records called for them."""
        calls: list[tuple[int, Any, Window, Window | None]] = []
        for key, held in touched.items():
            if not held.starts:
                continue  # its only records were late
            self._keyed.key = key
            self._stored.put((held.starts, held.ends, held.contents))
            for window in held.freed:
                self._cancel(window, key)
            for window, (number, before) in held.moves.items():
                calls.append((number, key, window, before))
        calls.sort(key=lambda call: call[0])
        for _, key, window, before in calls:
            if before is not None:
                self._cancel(before, key)
            self._schedule(window, key)

    def _schedule(self, window: Window, key: Any) -> None:
        last = window[1] - 1
        if last > self.context.current_watermark:
            self._timers.register_event_time(last, key, window)
        if self._windows.lateness:
            self._timers.register_event_time(min(last + self._windows.lateness, FOREVER), key, window)

    def _cancel(self, window: Window, key: Any) -> None:
        self._timers.delete_event_time(window[1] - 1, key, window)
        if self._windows.lateness:
            self._timers.delete_event_time(min(window[1] - 1 + self._windows.lateness, FOREVER), key, window)

    def _ended(self, time: int, bucket: Any) -> None:
        """Sessions end, or their lateness does: by window, and then in the order in which keys came to it."""
        for window in sorted(bucket):
            last = window[1] - 1
            for key in bucket[window]:
                self._keyed.key = key
                starts, ends, contents = self._stored.get()
                place = bisect_left(starts, window[0])
                if time == last:
                    self._output.emit(key, TimeWindow(*window), window, contents[place])
                if time == last + self._windows.lateness:
                    self._output.clear(TimeWindow(*window), window)
                    self._remove_session(starts, ends, contents, place)

    def _remove_session(self, starts: list[int], ends: list[int], contents: list[Any], place: int) -> None:
        if len(starts) == 1:
            self._stored.clear()
            return
        del starts[place], ends[place], contents[place]
        self._stored.put((starts, ends, contents))

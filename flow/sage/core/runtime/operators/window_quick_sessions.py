"""Event-time sessions with the default trigger: what MergingWindowOperator does, with one look at timers and state for
each session that a batch touches, in place of one for each record.
"""

from __future__ import annotations

from typing import Any

from sage.core.api.windows.assigners import EventTimeSessionWindows
from sage.core.api.windows.types import FOREVER, TimeWindow
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.window_contents import MISSING, pack, unpack
from sage.core.runtime.operators.window_sessions import MergingWindowOperator
from sage.core.runtime.operators.windows import WindowSpec
from sage.core.runtime.timer_heap import HeapTimerService

__all__ = ["SessionWindowOperator"]


class _Session:
    """A session of one key. `before`: its window when the batch began, None for a new one; `changed_at`: the number of
    the record that last changed the window."""

    __slots__ = ("before", "changed_at", "contents", "end", "space", "start", "touched")

    def __init__(self, start: int, end: int, space: Any, before: Any) -> None:
        self.start, self.end = start, end
        self.space = space
        self.before = before
        self.contents: Any = MISSING
        self.touched = False
        self.changed_at = 0


class _Key:
    """The sessions of a key while a batch is processed, and the windows and spaces that merging freed."""

    __slots__ = ("freed_spaces", "freed_windows", "sessions")

    def __init__(self, sessions: list[_Session]) -> None:
        self.sessions = sessions
        self.freed_windows: list[Any] = []
        self.freed_spaces: list[Any] = []


class SessionWindowOperator(MergingWindowOperator):
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

    def _take(self, records: list[Any], elements: list[Any], keys: list[Any], times: list[int]) -> None:
        touched: dict[Any, _Key] = {}
        gap, gap_of = self._sessions.gap, self._sessions.gap_of
        watermark, lateness = self.context.current_watermark, self._spec.lateness
        first, add = self._folding.first, self._folding.add
        for number, (record, key, time) in enumerate(zip(records, keys, times, strict=True)):
            held = touched.get(key)
            if held is None:
                held = touched[key] = self._sessions_of(key)
            end = time + (gap or gap_of(record))
            session = self._touching(held, key, time, end, number)
            if session is None:
                if end - 1 + lateness <= watermark:
                    self._skipped(record, time)
                    continue
                session = _Session(time, end, (time, end), None)
                session.changed_at = number
                held.sessions.append(session)
            contents = session.contents if session.touched else self._contents_of(session, key)
            session.contents = first(record) if contents is MISSING else add(record, contents)
            session.touched = True
            if session.end - 1 <= watermark:
                window = TimeWindow(session.start, session.end)
                self._keyed.key = key
                self._output.emit(key, window, (session.start, session.end), session.contents)
        self._settle_batch(touched)

    def _sessions_of(self, key: Any) -> _Key:
        self._keyed.key = key
        stored = self._sets.get()
        return _Key([_Session(window[0], window[1], space, window) for window, space in stored] if stored else [])

    def _contents_of(self, session: _Session, key: Any) -> Any:
        self._keyed.key = key
        return MISSING if session.before is None else unpack(self._table.get(session.space))

    def _touching(self, held: _Key, key: Any, start: int, end: int, number: int) -> _Session | None:
        """The session that a record belongs to, grown to hold it; several that it joins become one."""
        found = None
        for session in held.sessions:
            if session.start <= end and start <= session.end:
                if found is not None:
                    return self._joined(held, key, start, end, number)
                found = session
        if found is not None and (start < found.start or end > found.end):
            found.start, found.end = min(start, found.start), max(end, found.end)
            found.changed_at = number
        return found

    def _joined(self, held: _Key, key: Any, start: int, end: int, number: int) -> _Session:
        parts = sorted((s for s in held.sessions if s.start <= end and start <= s.end), key=lambda s: s.start)
        kept, *others = parts
        for session in parts:
            if not session.touched:
                session.contents = self._contents_of(session, key)
                session.touched = True
        for session in others:
            if kept.contents is MISSING:
                kept.contents = session.contents
            elif session.contents is not MISSING:
                kept.contents = self._folding.merge(kept.contents, session.contents)
            if session.before is not None:
                held.freed_windows.append(session.before)
                held.freed_spaces.append(session.space)
        kept.start, kept.end = min(start, kept.start), max(end, *(session.end for session in parts))
        kept.changed_at = number
        held.sessions = [session for session in held.sessions if session not in others]
        return kept

    def _settle_batch(self, touched: dict[Any, _Key]) -> None:
        """State and timers of all that the batch has touched; timers in the order in which records called for them."""
        changed: list[tuple[int, Any, _Session]] = []
        for key, held in touched.items():
            self._keyed.key = key
            for session in held.sessions:
                if session.touched:
                    self._table.put(pack(session.contents), session.space)
                    if session.before != (session.start, session.end):
                        changed.append((session.changed_at, key, session))
            if held.freed_windows or any(s.before != (s.start, s.end) for s in held.sessions):
                self._put_sessions(held)
            for space in held.freed_spaces:
                self._table.clear(space)
            for window in held.freed_windows:
                self._cancel(window, key)
        changed.sort(key=lambda change: change[0])
        for _, key, session in changed:
            if session.before is not None:
                self._cancel(session.before, key)
            self._schedule(session, key)

    def _put_sessions(self, held: _Key) -> None:
        self._sets.put([((session.start, session.end), session.space) for session in held.sessions])

    def _schedule(self, session: _Session, key: Any) -> None:
        last, window = session.end - 1, (session.start, session.end)
        if last > self.context.current_watermark:
            self._timers.register_event_time(last, key, window)
        if self._spec.lateness:
            self._timers.register_event_time(min(last + self._spec.lateness, FOREVER), key, window)

    def _cancel(self, window: Any, key: Any) -> None:
        self._timers.delete_event_time(window[1] - 1, key, window)
        if self._spec.lateness:
            self._timers.delete_event_time(min(window[1] - 1 + self._spec.lateness, FOREVER), key, window)

    def _ended(self, time: int, bucket: Any) -> None:
        """Sessions end, or their lateness does: by window, and then in the order in which keys came to it."""
        lateness, keyed, table = self._spec.lateness, self._keyed, self._table
        for window in sorted(bucket):
            shown, last = TimeWindow(window[0], window[1]), window[1] - 1
            for key in bucket[window]:
                keyed.key = key
                stored = self._sets.get()
                space = next(space for own, space in stored if tuple(own) == window)
                if time == last:
                    self._output.emit(key, shown, window, unpack(table.get(space)))
                if time != last + lateness:
                    continue
                table.clear(space)
                self._output.clear(shown, window)
                if len(stored) == 1:
                    self._sets.clear()
                else:
                    self._sets.put([entry for entry in stored if tuple(entry[0]) != window])

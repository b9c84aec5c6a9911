"""Windows in event time with the default trigger, whatever is assigned and done with the contents: nothing fires before
a window's end, so a batch is folded record by record without asking the trigger, and windows end for all keys at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from sage.core.api.windows.types import FOREVER
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.window_contents import EMPTY, MISSING, unpack
from sage.core.runtime.operators.windows import WindowOperator
from sage.core.runtime.timer_heap import HeapTimerService
from sage.core.state.memory import MemoryTable

__all__ = ["DefaultWindowOperator"]


class OpenPane:
    """A window in one batch, before its end, with the contents by key. `direct`: they are those of the state table;
    otherwise those that the batch has touched. `fresh`: keys that are new in the window."""

    __slots__ = ("direct", "fresh", "namespace", "values", "window")

    def __init__(self, window: Any, namespace: Hashable, values: dict[Any, Any], direct: bool) -> None:
        self.window = window
        self.namespace = namespace
        self.values = values
        self.direct = direct
        self.fresh: list[Any] = []


class DefaultWindowOperator(WindowOperator):
    """As WindowOperator, for EventTimeTrigger."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert isinstance(self._timers, HeapTimerService), "it takes many at once"
        self._timers.on_event_times = self._ended
        self._set_timers = self._timers.register_event_times

    def _take(self, records: list[Any], elements: list[Any], keys: list[Any], times: list[int]) -> None:
        if min(times) > self.context.current_watermark:
            self._take_open(elements, keys, self._assigner.assign_all(records, times, self))
        else:
            super()._take(records, elements, keys, times)

    def _take_open(self, elements: list[Any], keys: list[Any], assigned: Sequence[Sequence[Any]]) -> None:
        """As `_take` for the default trigger and windows whose end has not come: nothing fires, and each key that is
        new in a window needs its timers, all else is folding."""
        panes: dict[Any, OpenPane] = {}
        first, add = self._folding.first, self._folding.add
        known: Any = None
        current: list[OpenPane] = []
        for record, key, windows in zip(elements, keys, assigned, strict=True):
            if windows is not known:
                known = windows
                current = [panes.get(window) or self._open_pane(window, panes) for window in windows]
            for pane in current:
                held = pane.values.get(key)
                if held is None and (pane.direct or (held := self._stored(pane, key)) is None):
                    pane.fresh.append(key)
                    contents = first(record)
                else:
                    contents = add(record, unpack(held) if held.__class__ is tuple else held)
                pane.values[key] = EMPTY if contents is None else contents
        for pane in panes.values():
            self._store_open(pane)

    def _open_pane(self, window: Any, panes: dict[Any, OpenPane]) -> OpenPane:
        namespace = self._assigner.namespace(window)
        space = self._space(namespace)
        pane = panes[window] = OpenPane(window, namespace, {} if space is None else space, space is not None)
        return pane

    def _space(self, namespace: Hashable) -> dict[Any, Any] | None:
        """The contents of all keys of a window, where state is in memory and nobody else looks at it."""
        table = self._table
        return table.space(namespace) if isinstance(table, MemoryTable) else None

    def _stored(self, pane: OpenPane, key: Any) -> Any:
        self._keyed.key = key
        return self._table.get(pane.namespace)

    def _store_open(self, pane: OpenPane) -> None:
        last, lateness = pane.window.max_timestamp(), self._windows.lateness
        if pane.fresh:
            self._set_timers(last, pane.fresh, pane.namespace)
            if lateness and last + lateness < FOREVER:
                self._set_timers(last + lateness, pane.fresh, pane.namespace)
        if not pane.direct:
            keyed, put, namespace = self._keyed, self._table.put, pane.namespace
            for key, contents in pane.values.items():
                keyed.key = key
                put(contents, namespace)

    def _ended(self, time: int, bucket: Any) -> None:
        """What `_on_event_time` does, for all keys of a time at once."""
        for namespace, keys in bucket.items():
            window = self._assigner.window(namespace)
            space = self._space(namespace)
            if time == window.max_timestamp():
                if self._windows.evictor is not None:
                    self._fire_evicting(window, namespace, keys)
                else:
                    get = self._contents_of(namespace) if space is None else space.get
                    self._output.emit_all(self._keyed, window, namespace, [(key, unpack(get(key))) for key in keys])
            if time == self._cleanup_time(window):
                self._remove_all(window, namespace, keys, space)

    def _contents_of(self, namespace: Hashable) -> Callable[[Any], Any]:
        def get(key: Any) -> Any:
            self._keyed.key = key
            return self._table.get(namespace)

        return get

    def _fire_evicting(self, window: Any, namespace: Hashable, keys: Iterable[Any]) -> None:
        for key in keys:
            contents = unpack(self._contents_of(namespace)(key))
            if contents is not MISSING:
                self._keep(self._fire(key, window, namespace, contents), namespace)

    def _remove_all(self, window: Any, namespace: Hashable, keys: Any, space: dict[Any, Any] | None) -> None:
        keyed, table = self._keyed, self._table
        if self._output.clears:
            for key in keys:
                keyed.key = key
                self._output.clear(window, namespace)
        if space is not None and isinstance(table, MemoryTable) and len(space) <= len(keys):
            table.drop(namespace)
            return
        for key in keys:
            keyed.key = key
            table.clear(namespace)

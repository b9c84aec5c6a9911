"""Windows that merge (sessions). After Flink's WindowOperator and MergingWindowSet.

Each key has a set of windows in flight. A record brings a window of its own, which merges with those that it touches;
the contents stay in state under one of the merged windows (the state window), so that most merges move nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.windows.assigners import MergingWindowAssigner
from sage.core.api.windows.triggers import TriggerResult
from sage.core.api.windows.types import FOREVER
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.window_contents import MISSING, pack, unpack
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec

__all__ = ["MergingWindowOperator"]

CONTINUE = TriggerResult.CONTINUE


class _Windows:
    """The windows of one key while a batch is processed: window → namespace of its contents, and those contents."""

    __slots__ = ("changed", "contents", "loaded", "spaces")

    def __init__(self, spaces: dict[Any, Hashable]) -> None:
        self.spaces = spaces
        self.changed = False
        self.contents: dict[Hashable, Any] = {}
        self.loaded: set[Hashable] = set()  # namespaces that may stand in state


class MergingWindowOperator(WindowOperator):
    """Runs a MergingWindowAssigner."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        assert isinstance(spec.assigner, MergingWindowAssigner), "the factory looked"
        self._merging = spec.assigner
        if not self._trigger.can_merge():
            raise PipelineError(
                f"{type(self._trigger).__name__} does not work with windows that merge",
                cause=f"{type(spec.assigner).__name__} merges windows, and this trigger cannot (can_merge() is false)",
            )

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "windows are keyed"
        self._sets = context.keyed.table("merging-windows", "namespaces")

    def _take(self, records: list[Any], elements: list[Any], keys: list[Any], times: list[int]) -> None:
        touched: dict[Any, _Windows] = {}
        assign = self._assigner.assign_windows
        keyed = self._keyed
        for record, element, key, time in zip(records, elements, keys, times, strict=True):
            keyed.key = key
            windows = touched.get(key)
            if windows is None:
                windows = touched[key] = self._load()
            skipped = True
            for window in assign(record, time, self):
                if self._add(windows, window, key, record, element, time):
                    skipped = False
            if skipped:
                self._skipped(record, time)
        for key, windows in touched.items():
            keyed.key = key
            self._save(windows)

    def _add(self, windows: _Windows, own: Any, key: Any, record: Any, element: Any, time: int) -> bool:
        """Put a record into its window, merged with those that it touches; False when that is late."""
        window, unchanged = (own, True) if own in windows.spaces else self._merge(windows, own, key)
        if self._is_late(window):
            del windows.spaces[window]
            windows.changed = True
            return False
        space = windows.spaces[window]
        held = self._held(windows, space)
        windows.contents[space] = self._folding.first(element) if held is MISSING else self._folding.add(element, held)
        if unchanged and held is not MISSING and self._trigger.idempotent and self._is_open(window):
            return True
        namespace = self._assigner.namespace(window)
        result = self._trigger.on_element(record, time, window, self._trigger_context.at(namespace))
        if result is not CONTINUE:
            if result.is_fire:
                windows.contents[space] = self._fire(key, window, namespace, windows.contents[space])
            if result.is_purge:
                windows.contents[space] = MISSING
        self._register_cleanup(self._cleanup_time(window), key, namespace)
        return True

    def _merge(self, windows: _Windows, own: Any, key: Any) -> tuple[Any, bool]:
        """Flink's MergingWindowSet.addWindow: the window that `own` ends up in, and whether that existed as it is."""
        result, unchanged, spaces = own, False, windows.spaces
        for merged, parts in self._merging.merge_windows([*spaces, own]):
            earlier = [part for part in parts if part != own]
            if len(earlier) < len(parts):
                result, unchanged = merged, earlier == [merged]
            if earlier == [merged]:
                continue  # it covers the new one already
            kept, *dropped = [spaces.pop(part) for part in earlier]
            spaces[merged] = kept
            windows.changed = True
            self._merged(windows, merged, earlier, kept, dropped, key)
        if result not in spaces:
            spaces[result] = self._assigner.namespace(result)
            windows.changed = True
        return result, unchanged

    def _merged(
        self, windows: _Windows, merged: Any, earlier: list[Any], kept: Hashable, dropped: list[Hashable], key: Any
    ) -> None:
        """Windows have become one: timers and trigger state move, then the contents."""
        if not self._is_open_for_merge(merged):
            raise PipelineError(
                "A window that merged would end before the present time",
                cause=f"{merged} came of {', '.join(map(str, earlier))}",
                hint="a merging assigner must return windows that cover those that it merges",
            )
        spaces = [self._assigner.namespace(window) for window in earlier]
        own = self._assigner.namespace(merged)
        self._trigger.on_merge(merged, self._trigger_context.at(own, spaces))
        for window, space in zip(earlier, spaces, strict=True):
            self._trigger.clear(window, self._trigger_context.at(space))
            self._delete_cleanup(window, key, space)
        contents = self._held(windows, kept)
        for space in dropped:
            other = self._held(windows, space)
            if other is not MISSING:
                contents = other if contents is MISSING else self._folding.merge(contents, other)
            windows.contents[space] = MISSING
        windows.contents[kept] = contents

    def _held(self, windows: _Windows, space: Hashable) -> Any:
        """The contents under a namespace, for the state's current key."""
        if space not in windows.loaded and space not in windows.contents:
            windows.loaded.add(space)
            windows.contents[space] = unpack(self._table.get(space))
        return windows.contents[space]

    def _load(self) -> _Windows:
        stored = self._sets.get() or ()
        return _Windows({self._assigner.window(window): space for window, space in stored})

    def _save(self, windows: _Windows) -> None:
        for space, contents in windows.contents.items():
            if contents is not MISSING:
                self._table.put(pack(contents), space)
            elif space in windows.loaded:
                self._table.clear(space)
        if windows.changed:
            self._put(windows)

    def _put(self, windows: _Windows) -> None:
        if windows.spaces:
            self._sets.put([(self._assigner.namespace(window), space) for window, space in windows.spaces.items()])
        else:
            self._sets.clear()

    def _is_late(self, window: Any) -> bool:
        return self._event_time and self._cleanup_time(window) <= self.context.current_watermark

    def _is_open(self, window: Any) -> bool:
        return not self._event_time or window.max_timestamp() > self.context.current_watermark

    def _is_open_for_merge(self, merged: Any) -> bool:
        if self._event_time:
            return self._cleanup_time(merged) > self.context.current_watermark
        return bool(merged.max_timestamp() > self.context.clock.now_ms())

    def _delete_cleanup(self, window: Any, key: Any, namespace: Hashable) -> None:
        time = self._cleanup_time(window)
        if time == FOREVER:
            return
        if self._event_time:
            self._timers.delete_event_time(time, key, namespace)
        else:
            self._timers.delete_processing_time(time, key, namespace)

    def _on_event_time(self, time: int, key: Any, namespace: Any) -> None:
        window, windows = self._assigner.window(namespace), self._load()
        if window not in windows.spaces:
            return  # the window has become part of another
        result = self._trigger.on_event_time(time, window, self._trigger_context.at(namespace))
        self._settle(result, key, window, windows)
        if self._event_time and time == self._cleanup_time(window):
            self._retire(window, namespace, windows)

    def _on_processing_time(self, time: int, key: Any, namespace: Any) -> None:
        window, windows = self._assigner.window(namespace), self._load()
        if window not in windows.spaces:
            return
        result = self._trigger.on_processing_time(time, window, self._trigger_context.at(namespace))
        self._settle(result, key, window, windows)
        if not self._event_time and time == self._cleanup_time(window):
            self._retire(window, namespace, windows)

    def _settle(self, result: TriggerResult, key: Any, window: Any, windows: _Windows) -> None:
        """What a timer's trigger asked for."""
        space = windows.spaces[window]
        contents = MISSING if result is CONTINUE else self._held(windows, space)
        if contents is MISSING:
            return
        if result.is_fire:
            contents = self._fire(key, window, self._assigner.namespace(window), contents)
        if result.is_purge or contents is MISSING:
            self._table.clear(space)
        elif self._windows.evictor is not None:
            self._table.put(contents, space)

    def _retire(self, window: Any, namespace: Hashable, windows: _Windows) -> None:
        self._table.clear(windows.spaces.pop(window))
        self._trigger.clear(window, self._trigger_context.at(namespace))
        self._output.clear(window, namespace)
        self._put(windows)

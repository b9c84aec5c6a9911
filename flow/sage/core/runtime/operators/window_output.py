"""Puts a window's contents out: as they are, or through the user's window function."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from sage.core.api.windows.evictors import Evictor, TimestampedValue
from sage.core.graph.spec import BoundFunction, FunctionKind
from sage.core.runtime.events import NO_WATERMARK
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.functions import BatchCollector
from sage.core.runtime.operators.window_contents import MISSING, Contents
from sage.core.runtime.operators.window_context import WindowContext
from sage.core.state.base import KeyedStateBackend

__all__ = ["WindowOutput"]


class WindowOutput:
    """What comes out has the time of the window's last millisecond (as in Flink)."""

    def __init__(
        self,
        context: OperatorContext,
        contents: Contents,
        function: BoundFunction | None,
        kind: FunctionKind | None,
        *,
        merging: bool,
    ) -> None:
        self._out = context.out
        self._contents = contents
        self._context = WindowContext(context, merging=merging)
        self._collector = BatchCollector()
        self._apply: Callable[[Any, Any, Any, Any], Any] | None = None
        self._processes = kind is FunctionKind.PROCESS_WINDOW
        self._clear = None
        if function is not None:
            self._apply = function.call
            self._clear = getattr(function.target, "clear", None) if self._processes else None
        context.out.timed = True

    def emit(self, key: Any, window: Any, namespace: Hashable, contents: Any) -> None:
        """The window fires."""
        result = self._contents.result(contents)
        self._emit(key, window, namespace, [result] if self._contents.single else result)

    def emit_all(self, keyed: KeyedStateBackend, window: Any, namespace: Hashable, held: list[tuple[Any, Any]]) -> None:
        """The window fires for these keys, with their contents (MISSING ones are passed over)."""
        out, apply, single, result = self._out, self._apply, self._contents.single, self._contents.result
        emitted, collector = out.records, self._collector
        collector.point_to(out)
        seen = self._context.at(window, namespace) if self._processes else window
        for key, contents in held:
            if contents is MISSING:
                continue
            values = [result(contents)] if single else result(contents)
            if apply is None:
                emitted += values
                continue
            keyed.key = key
            returned = apply(key, seen, values, collector)
            if returned is not None:
                emitted.extend(returned)
        out.timestamps.extend([window.max_timestamp()] * (len(emitted) - len(out.timestamps)))

    @property
    def clears(self) -> bool:
        """Whether `clear` does anything."""
        return self._clear is not None

    def emit_evicted(
        self, key: Any, window: Any, namespace: Hashable, elements: list[Any], evictor: Evictor[Any]
    ) -> list[Any]:
        """A window with an evictor fires; returns the elements that stay (after Flink's EvictingWindowOperator)."""
        if evictor.by_place:
            kept = evictor.evict_before(elements, window)
            self._emit_values(key, window, namespace, [value for value, _ in kept])
            return list(evictor.evict_after(kept, window))
        held = [TimestampedValue(value, None if time == NO_WATERMARK else time) for value, time in elements]
        held = list(evictor.evict_before(held, window))
        self._emit_values(key, window, namespace, [element.value for element in held])
        held = list(evictor.evict_after(held, window))
        return [(element.value, NO_WATERMARK if element.timestamp is None else element.timestamp) for element in held]

    def _emit_values(self, key: Any, window: Any, namespace: Hashable, values: list[Any]) -> None:
        """All values of a window, folded now where they are to be folded."""
        if not self._contents.single:
            self._emit(key, window, namespace, values)
        elif values:
            self._emit(key, window, namespace, [self._contents.result(self._contents.of(values))])

    def clear(self, window: Any, namespace: Hashable) -> None:
        """The window is removed."""
        if self._clear is not None:
            self._clear(self._context.at(window, namespace))

    def _emit(self, key: Any, window: Any, namespace: Hashable, values: list[Any]) -> None:
        out, apply = self._out, self._apply
        if apply is None:
            out.records += values
        else:
            self._collector.point_to(out)
            seen = self._context.at(window, namespace) if self._processes else window
            returned = apply(key, seen, values, self._collector)
            if returned is not None:
                out.records.extend(returned)
        out.timestamps.extend([window.max_timestamp()] * (len(out.records) - len(out.timestamps)))

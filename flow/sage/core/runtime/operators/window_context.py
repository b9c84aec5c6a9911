"""What triggers and window functions see: time, timers and state of one window of one key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.timers import TimerService
from sage.core.state.base import KeyedStateBackend, MapTable, StateTable
from sage.core.state.ttl import Ttl

__all__ = ["WindowContext", "WindowTriggerContext"]

T = TypeVar("T")

VALUE_SCHEMA = "window-value"


class _NamespaceTable:
    """A state table, seen in one namespace: what state handles take for a table without namespaces."""

    def __init__(self, owner: _NamespaceBackend, table: StateTable) -> None:
        self._owner = owner
        self._table = table

    def get(self, namespace: Hashable = None) -> Any:
        return self._table.get(self._owner.namespace)

    def put(self, value: Any, namespace: Hashable = None) -> None:
        self._table.put(value, self._owner.namespace)

    def clear(self, namespace: Hashable = None) -> None:
        self._table.clear(self._owner.namespace)

    def merge(self, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]) -> None:
        self._table.merge(target, sources, combine)

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        return self._table.keys(self._owner.namespace)


class _NamespaceMap:
    """As _NamespaceTable, for maps."""

    def __init__(self, owner: _NamespaceBackend, table: MapTable) -> None:
        self._owner = owner
        self._table = table

    def get(self, entry: Hashable, namespace: Hashable = None) -> Any:
        return self._table.get(entry, self._owner.namespace)

    def put(self, entry: Hashable, value: Any, namespace: Hashable = None) -> None:
        self._table.put(entry, value, self._owner.namespace)

    def remove(self, entry: Hashable, namespace: Hashable = None) -> None:
        self._table.remove(entry, self._owner.namespace)

    def items(self, namespace: Hashable = None) -> list[tuple[Any, Any]]:
        return self._table.items(self._owner.namespace)

    def clear(self, namespace: Hashable = None) -> None:
        self._table.clear(self._owner.namespace)

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        return self._table.keys(self._owner.namespace)


class _NamespaceBackend:
    """A keyed backend whose tables are seen in the current `namespace`."""

    def __init__(self, backend: KeyedStateBackend, prefix: str) -> None:
        self._backend = backend
        self._prefix = prefix
        self.namespace: Hashable = None

    @property
    def key(self) -> Any:
        return self._backend.key

    @key.setter
    def key(self, key: Any) -> None:
        self._backend.key = key

    def table(self, name: str, schema: str, *, ttl_ms: int | None = None, ttl: Ttl | None = None) -> StateTable:
        return _NamespaceTable(self, self._backend.table(self._prefix + name, schema, ttl_ms=ttl_ms, ttl=ttl))

    def map_table(self, name: str, schema: str, *, ttl: Ttl | None = None) -> MapTable:
        return _NamespaceMap(self, self._backend.map_table(self._prefix + name, schema, ttl=ttl))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _WindowState:
    """State handles by descriptor, bound to the namespace of the window at hand."""

    def __init__(self, backend: KeyedStateBackend, prefix: str) -> None:
        self.view = _NamespaceBackend(backend, prefix)
        self._handles: dict[str, Any] = {}

    def handle(self, descriptor: Any) -> Any:
        from sage.core.state.handles import keyed_state

        found = self._handles.get(descriptor.name)
        if found is None:
            found = self._handles[descriptor.name] = keyed_state(self.view, descriptor)
        return found


class WindowTriggerContext:
    """The TriggerContext and OnMergeContext of one operator; `at` moves it from window to window."""

    def __init__(self, context: OperatorContext, timers: TimerService) -> None:
        assert context.keyed is not None, "windows are keyed"
        self._context = context
        self._timers = timers
        self._keyed = context.keyed
        self._state = _WindowState(context.keyed, "trigger-")
        self._tables: dict[str, StateTable] = {}
        self._namespace: Hashable = None
        self._merged: Sequence[Hashable] = ()
        self.get_current_processing_time = context.clock.now_ms

    def at(self, namespace: Hashable, merged: Sequence[Hashable] = ()) -> WindowTriggerContext:
        """Stand at a window of the state's current key; `merged`: the windows that have become it."""
        self._namespace = namespace
        self._merged = merged
        return self

    def get_current_watermark(self) -> int:
        """See TriggerContext."""
        return self._context.current_watermark

    def register_event_time_timer(self, time: int) -> None:
        """See TriggerContext."""
        self._timers.register_event_time(time, self._keyed.key, self._namespace)

    def register_processing_time_timer(self, time: int) -> None:
        """See TriggerContext."""
        self._timers.register_processing_time(time, self._keyed.key, self._namespace)

    def delete_event_time_timer(self, time: int) -> None:
        """See TriggerContext."""
        self._timers.delete_event_time(time, self._keyed.key, self._namespace)

    def delete_processing_time_timer(self, time: int) -> None:
        """See TriggerContext."""
        self._timers.delete_processing_time(time, self._keyed.key, self._namespace)

    def get_value(self, name: str) -> Any:
        """See TriggerContext."""
        return self._table(name).get(self._namespace)

    def set_value(self, name: str, value: Any) -> None:
        """See TriggerContext."""
        table = self._table(name)
        if value is None:
            table.clear(self._namespace)
        else:
            table.put(value, self._namespace)

    def merge_values(self, name: str, combine: Callable[[Any, Any], Any]) -> None:
        """See OnMergeContext."""
        self._table(name).merge(self._namespace, self._merged, combine)

    def get_partitioned_state(self, descriptor: Any) -> Any:
        """See TriggerContext."""
        self._state.view.namespace = self._namespace
        return self._state.handle(descriptor)

    def merge_partitioned_state(self, descriptor: Any) -> None:
        """See OnMergeContext: the contents of list, reducing and aggregating states are added to the new window's."""
        view = self._state.view
        target = self.get_partitioned_state(descriptor)
        for namespace in self._merged:
            if namespace == self._namespace:
                continue
            view.namespace = namespace
            contents = target.get()
            target.clear()
            view.namespace = self._namespace
            if isinstance(contents, list):
                target.add_all(contents)
            elif contents is not None:
                target.add(contents)

    def _table(self, name: str) -> StateTable:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = self._keyed.table(f"trigger-value-{name}", VALUE_SCHEMA)
        return table


class WindowContext:
    """The ProcessWindowContext of one operator. `window` is the window at hand."""

    def __init__(self, context: OperatorContext, *, merging: bool) -> None:
        assert context.keyed is not None, "windows are keyed"
        self.window: Any = None
        self._context = context
        self._merging = merging
        self._state = _WindowState(context.keyed, "window-")

    def at(self, window: Any, namespace: Hashable) -> WindowContext:
        """Stand at a window of the state's current key."""
        self.window = window
        self._state.view.namespace = namespace
        return self

    def current_watermark(self) -> int:
        """See ProcessWindowContext."""
        return self._context.current_watermark

    def current_processing_time(self) -> int:
        """See ProcessWindowContext."""
        return self._context.clock.now_ms()

    def window_state(self, descriptor: Any) -> Any:
        """See ProcessWindowContext. Raises PipelineError for windows that merge (as in Flink)."""
        if self._merging:
            raise PipelineError(
                "Windows that merge have no state of their own",
                cause=f"window_state({descriptor.name!r}) was called in a session window, which may become another",
                hint="use global_state, which belongs to the key",
            )
        return self._state.handle(descriptor)

    def global_state(self, descriptor: Any) -> Any:
        """See ProcessWindowContext."""
        return self._context.function._keyed_state(descriptor)

    def output(self, tag: OutputTag[T], value: T) -> None:
        """See ProcessWindowContext."""
        self._context.out.output(tag_name(tag), value, self.window.max_timestamp())

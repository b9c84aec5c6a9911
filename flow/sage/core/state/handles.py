"""The states that functions work with, made from descriptors: thin views of a backend's tables at the current key."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.state import (
    AggregatingStateDescriptor,
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    StateDescriptor,
    StateVisibility,
    TtlUpdate,
    ValueStateDescriptor,
)
from sage.core.state.base import KeyedStateBackend, MapTable, OperatorStateBackend, StateTable
from sage.core.state.copies import UNCHANGING
from sage.core.state.ttl import Ttl

__all__ = ["keyed_state", "keys_of", "operator_list_state"]


def keyed_state(backend: KeyedStateBackend, descriptor: Any) -> Any:
    """The state of a descriptor. Raises PipelineError for what is none, StateError when a restored one differs."""
    make = _MAKERS.get(type(descriptor))
    if make is None:
        raise PipelineError(
            f"{descriptor!r:.80} is no state descriptor",
            hint='write for example ValueStateDescriptor("total", default=0) from sage.core.api.state',
        )
    return make(backend, descriptor)


def keys_of(backend: KeyedStateBackend, descriptor: Any) -> Iterable[Any]:
    """The keys of this subtask that have a value of the descriptor."""
    if isinstance(descriptor, MapStateDescriptor):
        return _map_table(backend, descriptor).keys()
    return _table(backend, descriptor).keys()


def operator_list_state(backend: OperatorStateBackend, descriptor: Any, mode: str) -> OperatorList:
    """A list of the subtask; `mode` is list or union."""
    return OperatorList(backend, descriptor.name, mode)


def _table(backend: KeyedStateBackend, descriptor: Any) -> StateTable:
    return backend.table(descriptor.name, descriptor.fingerprint(), ttl=_ttl(backend, descriptor))


def _map_table(backend: KeyedStateBackend, descriptor: Any) -> MapTable:
    return backend.map_table(descriptor.name, descriptor.fingerprint(), ttl=_ttl(backend, descriptor))


def _ttl(backend: KeyedStateBackend, descriptor: StateDescriptor) -> Ttl | None:
    config = descriptor.ttl
    if config is None:
        return None
    return Ttl(
        config.milliseconds,
        backend.now_ms,
        renew_on_read=config.update is TtlUpdate.ON_READ_AND_WRITE,
        show_expired=config.visibility is StateVisibility.RETURN_EXPIRED_IF_NOT_CLEANED_UP,
    )


class KeyedValue:
    """See `sage.core.api.state.ValueState`."""

    __slots__ = ("clear", "update", "value")

    def __init__(self, backend: KeyedStateBackend, descriptor: ValueStateDescriptor[Any]) -> None:
        table, default = _table(backend, descriptor), descriptor.default
        accessors = getattr(table, "accessors", None)
        if accessors is not None and type(default) in UNCHANGING:
            self.value, self.update = accessors(default)
        else:
            self.value, self.update = _value_of(table, default), table.put
        self.clear = table.clear


def _value_of(table: StateTable, default: Any) -> Callable[[], Any]:
    get = table.get
    changing = type(default) not in UNCHANGING

    def value() -> Any:
        found = get()
        if found is None:
            return copy.deepcopy(default) if changing else default
        return found

    return value


class KeyedList:
    """See `sage.core.api.state.ListState`. With a time to live each element is kept with its own time."""

    __slots__ = ("_backend", "_table", "_ttl", "clear")

    def __init__(self, backend: KeyedStateBackend, descriptor: ListStateDescriptor[Any]) -> None:
        self._table = _table(backend, descriptor)
        self._ttl = _ttl(backend, descriptor)
        self._backend = backend
        self.clear = self._table.clear

    def get(self) -> list[Any]:
        elements = self._table.get()
        if elements is None:
            return []
        if self._ttl is None:
            return list(elements)
        alive = [element for element in elements if not self._ttl.expired(element)]
        if self._ttl.renew_on_read:
            now = self._ttl.now()
            self._table.put([(now, value) for _, value in alive] or None)
        elif len(alive) != len(elements):
            self._table.put(alive or None)
            if self._ttl.show_expired:
                alive = elements
        return [value for _, value in alive]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get())

    def add(self, value: Any) -> None:
        self.add_all((value,))

    def add_all(self, values: Iterable[Any]) -> None:
        added = self._stored(values)
        if not added:
            return
        elements = self._table.get()
        if elements is None:
            elements = added
        else:
            elements.extend(added)
        self._table.put(elements)

    def update(self, values: Iterable[Any]) -> None:
        self._table.put(self._stored(values) or None)

    def _stored(self, values: Iterable[Any]) -> list[Any]:
        if self._ttl is None:
            return list(values)
        now = self._ttl.now()
        return [(now, value) for value in values]


class KeyedMap:
    """See `sage.core.api.state.MapState`."""

    __slots__ = ("_table", "clear", "get", "put", "remove")

    def __init__(self, backend: KeyedStateBackend, descriptor: MapStateDescriptor[Any, Any]) -> None:
        table = self._table = _map_table(backend, descriptor)
        self.get, self.put, self.remove, self.clear = table.get, table.put, table.remove, table.clear

    def put_all(self, entries: dict[Any, Any]) -> None:
        for key, value in entries.items():
            self.put(key, value)

    def contains(self, key: Any) -> bool:
        return self.get(key) is not None

    __contains__ = contains

    def items(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._table.items())

    def keys(self) -> Iterator[Any]:
        return iter([key for key, _ in self._table.items()])

    __iter__ = keys

    def values(self) -> Iterator[Any]:
        return iter([value for _, value in self._table.items()])

    def is_empty(self) -> bool:
        return not self._table.items()


class KeyedReducing:
    """See `sage.core.api.state.ReducingState`."""

    __slots__ = ("_get", "_put", "_reduce", "clear", "get")

    def __init__(self, backend: KeyedStateBackend, descriptor: ReducingStateDescriptor[Any]) -> None:
        table = _table(backend, descriptor)
        self.get = self._get = table.get
        self._put = table.put
        self._reduce = descriptor.reduce_function
        self.clear = table.clear

    def add(self, value: Any) -> None:
        before = self._get()
        self._put(value if before is None else self._reduce(before, value))


class KeyedAggregating:
    """See `sage.core.api.state.AggregatingState`."""

    __slots__ = ("_aggregate", "_get", "_put", "clear")

    def __init__(self, backend: KeyedStateBackend, descriptor: AggregatingStateDescriptor[Any, Any, Any]) -> None:
        table = _table(backend, descriptor)
        aggregate = descriptor.aggregate_function
        self._aggregate: Any = aggregate() if isinstance(aggregate, type) else aggregate
        self._get, self._put = table.get, table.put
        self.clear = table.clear

    def get(self) -> Any:
        accumulator = self._get()
        return None if accumulator is None else self._aggregate.get_result(accumulator)

    def add(self, value: Any) -> None:
        accumulator = self._get()
        if accumulator is None:
            accumulator = self._aggregate.create_accumulator()
        self._put(self._aggregate.add(value, accumulator))


class OperatorList:
    """See `sage.core.api.state.ListState`; of a subtask."""

    __slots__ = ("_backend", "_mode", "_name")

    def __init__(self, backend: OperatorStateBackend, name: str, mode: str) -> None:
        self._backend, self._name, self._mode = backend, name, mode
        backend.get(name, mode)  # says so at once when the restored state is of another kind

    def get(self) -> list[Any]:
        return self._backend.get(self._name, self._mode)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get())

    def add(self, value: Any) -> None:
        self.add_all((value,))

    def add_all(self, values: Iterable[Any]) -> None:
        self._backend.put(self._name, [*self.get(), *values], self._mode)

    def update(self, values: Iterable[Any]) -> None:
        self._backend.put(self._name, list(values), self._mode)

    def clear(self) -> None:
        self._backend.put(self._name, [], self._mode)


_MAKERS: dict[type, Any] = {
    ValueStateDescriptor: KeyedValue,
    ListStateDescriptor: KeyedList,
    MapStateDescriptor: KeyedMap,
    ReducingStateDescriptor: KeyedReducing,
    AggregatingStateDescriptor: KeyedAggregating,
}

"""Keyed state in dicts: the quickest backend, for state that fits in memory. After Flink's HashMapStateBackend.

A snapshot copies the dicts (not the values) while the task stands, and writes them in another thread. A value that can
change is copied when the task touches it while that runs, so the file holds what was there at the barrier (copy on
access, as in Flink's CopyOnWriteStateTable).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sage.common.errors import StateError
from sage.core.runtime.clock import Clock, SystemClock
from sage.core.state.base import NO_KEY, MapTable, RawState, SnapshotRequest, StateSnapshot, StateTable
from sage.core.state.copies import UNCHANGING, own_copy
from sage.core.state.group_file import GroupFileReader, GroupFileWriter
from sage.core.state.groups import KEY_GROUPS, group_of
from sage.core.state.maps import DictMapTable, TtlMapTable
from sage.core.state.merge import merge_namespaces
from sage.core.state.restored import RestoredBlocks, dump_block, load_block
from sage.core.state.ttl import Ttl, TtlTable

__all__ = ["MemoryKeyedState", "MemoryTable"]

_FILE = "keyed.state"
_BLOCK_ENTRIES = 8192
_SWEPT_ROWS = 128

Space = dict[Any, Any]  # key → value, in one namespace


class MemoryTable:
    """A named state. One dict without a namespace, and one for each namespace in use."""

    __slots__ = ("_backend", "_spaces", "_touched", "_values", "name")

    def __init__(self, backend: MemoryKeyedState, name: str) -> None:
        self.name = name
        self._backend = backend
        self._values: Space = {}
        self._spaces: dict[Hashable, Space] = {}
        self._touched: set[tuple[Any, Hashable]] | None = None  # own copies, while a snapshot is being written

    @property
    def direct(self) -> Space | None:
        """The values by key, for a loop that reads and replaces them itself; None while a snapshot needs the old ones.

        Always the same dict. May become None only between two batches.
        """
        return self._values if self._touched is None else None

    def space(self, namespace: Hashable) -> Space | None:
        """As `direct`, for a namespace: made if there is none, gone once `clear` or `drop` has emptied it."""
        return self._spaces.setdefault(namespace, {}) if self._touched is None else None

    def drop(self, namespace: Hashable) -> None:
        """Remove the values of all keys in a namespace."""
        self._spaces.pop(namespace, None)

    def accessors(self, default: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """`get` (with a default) and `put` without a namespace, as two functions: half the time of the methods."""
        backend, values, find = self._backend, self._values, self._values.get

        def value() -> Any:
            if self._touched is None:
                return find(backend.key, default)
            found = self._get_apart(None)
            return default if found is None else found

        def update(value: Any) -> None:
            if value is None or self._touched is not None:
                self.put(value)
            else:
                values[backend.key] = value

        return value, update

    def get(self, namespace: Hashable = None) -> Any:
        """See StateTable."""
        if self._touched is not None:
            return self._get_apart(namespace)
        if namespace is None:
            return self._values.get(self._backend.key)
        space = self._spaces.get(namespace)
        return None if space is None else space.get(self._backend.key)

    def put(self, value: Any, namespace: Hashable = None) -> None:
        """See StateTable; None is no value."""
        if value is None:
            self.clear(namespace)
            return
        touched = self._touched  # once: another thread may end the snapshot now
        if touched is not None:
            touched.add((self._backend.key, namespace))
        if namespace is None:
            self._values[self._backend.key] = value
            return
        space = self._spaces.get(namespace)
        if space is None:
            space = self._spaces[namespace] = {}
        space[self._backend.key] = value

    def clear(self, namespace: Hashable = None) -> None:
        """See StateTable."""
        if namespace is None:
            self._values.pop(self._backend.key, None)
            return
        space = self._spaces.get(namespace)
        if space is not None:
            space.pop(self._backend.key, None)
            if not space:
                del self._spaces[namespace]

    def merge(self, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]) -> None:
        """See StateTable."""
        merge_namespaces(self, target, sources, combine)

    def keys(self, namespace: Hashable = None) -> list[Any]:
        """See StateTable; a list of its own, so that the state may change while it is gone through."""
        return list(self._values if namespace is None else self._spaces.get(namespace, ()))

    def _get_apart(self, namespace: Hashable) -> Any:
        """A value that the snapshot does not share: what the caller does to it must not reach the file."""
        space = self._values if namespace is None else self._spaces.get(namespace)
        if space is None:
            return None
        key = self._backend.key
        value = space.get(key)
        touched = self._touched
        if type(value) in UNCHANGING or touched is None or (key, namespace) in touched:
            return value
        value = space[key] = own_copy(value)
        touched.add((key, namespace))
        return value

    def frozen(self) -> list[tuple[Hashable, Space]]:
        """The contents now; from here on, until `thaw`, values are copied before anybody can change them."""
        self._touched = set()
        spaces: list[tuple[Hashable, Space]] = [(None, self._values.copy())]
        return spaces + [(namespace, space.copy()) for namespace, space in self._spaces.items()]

    def thaw(self) -> None:
        """No snapshot needs the values any more."""
        self._touched = None

    def load(self, keys: Iterable[Any], namespaces: Iterable[Hashable], values: Iterable[Any]) -> None:
        """Put entries of a snapshot in."""
        for key, namespace, value in zip(keys, namespaces, values, strict=True):
            if namespace is None:
                self._values[key] = value
            else:
                self._spaces.setdefault(namespace, {})[key] = value

    def sweep(self, slots: list[tuple[Any, Hashable]], expired: Callable[[Any], bool]) -> None:
        """Remove those of the rows that have expired."""
        for key, namespace in slots:
            space = self._values if namespace is None else self._spaces.get(namespace)
            row = None if space is None else space.get(key)
            if space is not None and row is not None and expired(row):
                del space[key]
                if namespace is not None and not space:
                    del self._spaces[namespace]

    def slots(self) -> Iterator[tuple[Any, Hashable]]:
        """(key, namespace) of all rows, as they are now; rows may come and go meanwhile."""
        for namespace in [None, *self._spaces]:
            for key in self.keys(namespace):
                yield key, namespace

    @property
    def size(self) -> int:
        """Bytes, from the dicts and a sample of 64 entries."""
        total = 0
        for space in itertools.chain((self._values,), list(self._spaces.values())):
            sample = [sys.getsizeof(k) + sys.getsizeof(v) for k, v in itertools.islice(space.items(), 64)]
            total += sys.getsizeof(space) + (sum(sample) * len(space) // len(sample) if sample else 0)
        return total


def _all_expired(ttl: Ttl, entries: dict[Any, Any]) -> bool:
    return all(ttl.expired(row) for row in entries.values())


class Sweep:
    """Goes round and round a table, some rows a step, and removes those that have expired."""

    def __init__(self, table: MemoryTable, expired: Callable[[Any], bool]) -> None:
        self._table = table
        self._expired = expired
        self._slots = table.slots()

    def step(self) -> None:
        """Look at the next rows."""
        slots = list(itertools.islice(self._slots, _SWEPT_ROWS))
        if len(slots) < _SWEPT_ROWS:
            self._slots = self._table.slots()
        self._table.sweep(slots, self._expired)


class MemoryKeyedState:
    """The KeyedStateBackend of one operator in one subtask, owner of the key groups `first` to `last`."""

    def __init__(self, first: int = 0, last: int = KEY_GROUPS - 1, clock: Clock | None = None) -> None:
        self.key: Any = NO_KEY
        self.now_ms = (clock or SystemClock()).now_ms
        self._groups = (first, last)
        self._tables: dict[str, MemoryTable] = {}
        self._raw: dict[str, RawState] = {}
        self._restored = RestoredBlocks()
        self._sweeps: dict[str, Sweep] = {}
        self._freezes = 0
        self._lock = threading.Lock()

    def table(self, name: str, schema: str, *, ttl_ms: int | None = None, ttl: Ttl | None = None) -> StateTable:
        """See KeyedStateBackend."""
        ttl = ttl or (Ttl(ttl_ms, self.now_ms) if ttl_ms else None)
        rows = self._rows(name, schema, ttl.expired if ttl else None)
        return TtlTable(rows, ttl) if ttl else rows

    def map_table(self, name: str, schema: str, *, ttl: Ttl | None = None) -> MapTable:
        """See KeyedStateBackend."""
        rows = self._rows(name, schema, partial(_all_expired, ttl) if ttl else None)
        return TtlMapTable(DictMapTable(rows), ttl) if ttl else DictMapTable(rows)

    def _rows(self, name: str, schema: str, expired: Callable[[Any], bool] | None) -> MemoryTable:
        table = self._tables.get(name)
        self._restored.check(name, schema)
        if table is None:
            table = self._tables[name] = MemoryTable(self, name)
            for _group, block in self._restored.take(name):
                table.load(*load_block(name, block))
        if expired is not None and name not in self._sweeps:
            self._sweeps[name] = Sweep(table, expired)
        return table

    def raw(self, name: str, state: RawState) -> None:
        """See KeyedStateBackend."""
        self._raw[name] = state
        parts = self._restored.take_raw(name)
        if parts:
            state.load(parts)

    def snapshot(self, request: SnapshotRequest) -> Callable[[], StateSnapshot]:
        """See KeyedStateBackend."""
        with self._lock:  # first: an earlier snapshot that ends meanwhile must not thaw what is frozen here
            self._freezes += 1
        try:
            parts = _Parts(
                tables={name: table.frozen() for name, table in self._tables.items()},
                raw={name: state.dump() for name, state in self._raw.items()},
                kept=self._restored.unclaimed(),
            )
        except BaseException:
            self.release()
            raise
        return _Writing(self, request, parts, dict(self._restored.schema))

    def release(self) -> None:
        """A snapshot has been written, or was given up; from any thread."""
        with self._lock:
            self._freezes -= 1
            if self._freezes == 0:
                for table in list(self._tables.values()):  # the task may declare another one meanwhile
                    table.thaw()

    def restore(self, snapshots: list[tuple[Path, StateSnapshot]]) -> None:
        """See KeyedStateBackend."""
        first, last = self._groups
        for folder, snapshot in snapshots:
            own = range(max(first, snapshot.groups[0]), min(last, snapshot.groups[1]) + 1)
            if snapshot.backend == "rocksdb":
                raise StateError(
                    f"The checkpoint in {folder} was made by the backend rocksdb",
                    cause="this job keeps its state in memory",
                    hint="start with state.backend: rocksdb, and change the backend over a savepoint",
                )
            self._restored.expect(snapshot.schema)
            for file in snapshot.files:
                for table, group, block in GroupFileReader(folder / file).blocks(own):
                    self._restored.add(table, group, block)

    def flush_slice(self) -> None:
        """See KeyedStateBackend: nothing is written before a snapshot; some rows that have expired are removed."""
        for sweep in self._sweeps.values():
            sweep.step()

    @property
    def groups(self) -> tuple[int, int]:
        """First and last key group."""
        return self._groups

    @property
    def size(self) -> int:
        """See KeyedStateBackend."""
        return sum(table.size for table in self._tables.values())

    def close(self) -> None:
        """See KeyedStateBackend."""
        self._tables.clear()
        self._raw.clear()


class _Parts:
    """What a snapshot consists of, as it was at the barrier."""

    __slots__ = ("kept", "raw", "tables")

    def __init__(
        self,
        tables: dict[str, list[tuple[Hashable, Space]]],
        raw: dict[str, Iterable[tuple[int, bytes]]],
        kept: list[tuple[str, int, bytes]],
    ) -> None:
        self.tables, self.raw, self.kept = tables, raw, kept


class _Writing:
    """The part of a snapshot that may run in another thread. Lets the values go when it is through, or is dropped."""

    def __init__(
        self, backend: MemoryKeyedState, request: SnapshotRequest, parts: _Parts, schema: dict[str, str]
    ) -> None:
        self._backend: MemoryKeyedState | None = backend
        self._request = request
        self._parts = parts
        self._schema = schema

    def __call__(self) -> StateSnapshot:
        backend, parts = self._backend, self._parts
        if backend is None:
            raise StateError("This part of a checkpoint has been written already")
        try:
            with GroupFileWriter(self._request.folder / _FILE) as file:
                for name, spaces in parts.tables.items():
                    _write_table(file, name, spaces)
                for name, groups in parts.raw.items():
                    for group, block in groups:
                        file.add(f"raw:{name}", group, block)
                for name, group, block in parts.kept:
                    file.add(name, group, block)
        finally:
            self._release()
        return StateSnapshot(
            "memory", backend.groups, files=[_FILE], schema=self._schema, written=file.written, size=file.written
        )

    def _release(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.release()

    def __del__(self) -> None:
        self._release()


def _write_table(file: GroupFileWriter, name: str, spaces: list[tuple[Hashable, Space]]) -> None:
    """All entries of a table, sorted into groups; blocks stay small, so that other threads get their turn."""
    keys: list[list[Any]] = [[] for _ in range(KEY_GROUPS)]
    namespaces: list[list[Hashable]] = [[] for _ in range(KEY_GROUPS)]
    values: list[list[Any]] = [[] for _ in range(KEY_GROUPS)]
    for namespace, space in spaces:
        for key, value in space.items():
            group = group_of(key)
            keys[group].append(key)
            namespaces[group].append(namespace)
            values[group].append(value)
    for group in range(KEY_GROUPS):
        for start in range(0, len(keys[group]), _BLOCK_ENTRIES):
            part = slice(start, start + _BLOCK_ENTRIES)
            file.add(
                f"table:{name}", group, dump_block(keys[group][part], namespaces[group][part], values[group][part])
            )

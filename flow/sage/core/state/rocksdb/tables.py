"""Tables and maps over cached rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sage.core.state.merge import merge_namespaces
from sage.core.state.rocksdb.cache import MISSING, CachedRows
from sage.core.state.rocksdb.rows import ENTRY, PLAIN, SPACED, RowCodec, decode

if TYPE_CHECKING:
    from sage.core.state.rocksdb.backend import RocksKeyedState

__all__ = ["MapRows", "RocksMapTable", "RocksTable", "live_slots"]


class RocksTable:
    """A StateTable."""

    __slots__ = ("_backend", "_plain", "_spaced", "name")

    def __init__(self, backend: RocksKeyedState, name: str, number: int) -> None:
        self.name = name
        self._backend = backend
        plain, spaced = RowCodec(number, PLAIN), RowCodec(number, SPACED)
        self._plain = backend.rows(plain, plain.plain)
        self._spaced = backend.rows(spaced, spaced.spaced)

    def accessors(self, default: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """`get` (with a default) and `put` without a namespace, as two functions."""
        backend, rows = self._backend, self._plain

        def value() -> Any:
            found = rows.dirty.get(backend.key, MISSING)
            if found is MISSING:
                found = rows.get_clean(backend.key)
            return default if found is None else found

        def update(value: Any) -> None:
            rows.dirty[backend.key] = value

        return value, update

    def get(self, namespace: Hashable = None) -> Any:
        """See StateTable."""
        if namespace is None:
            rows = self._plain
            value = rows.dirty.get(self._backend.key, MISSING)
            return rows.get_clean(self._backend.key) if value is MISSING else value
        return self._spaced.get((self._backend.key, namespace))

    def put(self, value: Any, namespace: Hashable = None) -> None:
        """See StateTable."""
        if namespace is None:
            self._plain.dirty[self._backend.key] = value
        else:
            self._spaced.dirty[self._backend.key, namespace] = value

    def clear(self, namespace: Hashable = None) -> None:
        """See StateTable."""
        self.put(None, namespace)

    def merge(self, target: Hashable, sources: Iterable[Hashable], combine: Callable[[Any, Any], Any]) -> None:
        """See StateTable."""
        merge_namespaces(self, target, sources, combine)

    def keys(self, namespace: Hashable = None) -> list[Any]:
        """See StateTable. With a namespace, this reads the rows of all of them."""
        if namespace is None:
            return list(self._backend.slots(self._plain))
        return [key for key, space in self._backend.slots(self._spaced) if space == namespace]

    def load(self, keys: Iterable[Any], namespaces: Iterable[Hashable], values: Iterable[Any]) -> None:
        """Put rows of a savepoint in."""
        for key, namespace, value in zip(keys, namespaces, values, strict=True):
            if namespace is None:
                self._plain.put(key, value)
            else:
                self._spaced.put((key, namespace), value)

    def stores(self) -> list[CachedRows]:
        """What its rows lie in."""
        return [self._plain, self._spaced]


class RocksMapTable:
    """A MapTable in which every entry is a row of its own."""

    __slots__ = ("_backend", "_codec", "_rows", "name")

    def __init__(self, backend: RocksKeyedState, name: str, number: int) -> None:
        self.name = name
        self._backend = backend
        self._codec = RowCodec(number, ENTRY)
        self._rows = backend.map_rows(self._codec)

    def get(self, entry: Hashable, namespace: Hashable = None) -> Any:
        """See MapTable."""
        return self._rows.get((self._backend.key, namespace, entry))

    def put(self, entry: Hashable, value: Any, namespace: Hashable = None) -> None:
        """See MapTable."""
        self._rows.put((self._backend.key, namespace, entry), value)

    def remove(self, entry: Hashable, namespace: Hashable = None) -> None:
        """See MapTable."""
        self.put(entry, None, namespace)

    def items(self, namespace: Hashable = None) -> list[tuple[Any, Any]]:
        """See MapTable; the map's rows are neighbours in the database, and what is newer is known by map."""
        owner = (self._backend.key, namespace)
        newer = self._rows.newer_entries(owner)
        found = []
        for row, packed in self._backend.scan(self._codec.of_map(owner)):
            slot, value = decode(row, packed)
            if slot[2] not in newer:
                found.append((slot[2], value))
        return found + [(entry, self._rows.get((*owner, entry))) for entry in newer if self._has(owner, entry)]

    def clear(self, namespace: Hashable = None) -> None:
        """See MapTable."""
        for entry, _ in self.items(namespace):
            self.remove(entry, namespace)

    def keys(self, namespace: Hashable = None) -> list[Any]:
        """See MapTable; reads all rows of the table."""
        return list(dict.fromkeys(key for key, space, _ in self._backend.slots(self._rows) if space == namespace))

    def load(self, keys: Iterable[Any], namespaces: Iterable[Hashable], values: Iterable[dict[Any, Any]]) -> None:
        """Put maps of a savepoint in."""
        for key, namespace, entries in zip(keys, namespaces, values, strict=True):
            for entry, value in entries.items():
                self._rows.put((key, namespace, entry), value)

    def stores(self) -> list[CachedRows]:
        """What its rows lie in."""
        return [self._rows]

    def _has(self, owner: tuple[Any, Hashable], entry: Hashable) -> bool:
        return self._rows.get((*owner, entry)) is not None


class MapRows(CachedRows):
    """Cached rows of a map state, with the entries that are newer than the database known by (key, namespace)."""

    __slots__ = ("_by_owner", "_by_owner_frozen")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._by_owner: dict[tuple[Any, Hashable], dict[Any, None]] = {}
        self._by_owner_frozen: dict[tuple[Any, Hashable], dict[Any, None]] = {}

    def put(self, slot: Any, value: Any) -> None:
        """See CachedRows."""
        self.dirty[slot] = value
        owner = slot[0], slot[1]
        entries = self._by_owner.get(owner)
        if entries is None:
            self._by_owner[owner] = {slot[2]: None}
        else:
            entries[slot[2]] = None

    def newer_entries(self, owner: tuple[Any, Hashable]) -> dict[Any, None]:
        """Entries of a map that may be newer than the database."""
        return {**self._by_owner_frozen.get(owner, {}), **self._by_owner.get(owner, {})}

    def take(self, count: int, written: dict[bytes, bytes | None]) -> None:
        """See CachedRows."""
        last = list(itertools.islice(reversed(self.aging), count))
        super().take(count, written)
        for slot in last:
            if slot not in self.dirty:
                owner = slot[0], slot[1]
                entries = self._by_owner[owner]
                del entries[slot[2]]
                if not entries:
                    del self._by_owner[owner]

    def freeze(self) -> None:
        """See CachedRows."""
        super().freeze()
        self._by_owner_frozen, self._by_owner = self._by_owner, {}

    def written(self) -> None:
        """See CachedRows."""
        super().written()
        self._by_owner_frozen = {}

    def not_written(self) -> None:
        """See CachedRows."""
        super().not_written()
        for owner, entries in self._by_owner.items():
            self._by_owner_frozen.setdefault(owner, {}).update(entries)
        self._by_owner, self._by_owner_frozen = self._by_owner_frozen, {}


def live_slots(rows: CachedRows, found: Iterator[tuple[bytes, bytes]]) -> Iterator[Any]:
    """Slots that have a value: of the database's rows, overlaid by what is newer."""
    for row, packed in found:
        slot, _ = decode(row, packed)
        if not rows.newer(slot):
            yield slot
    newer: dict[Any, Any] = {**rows.frozen, **rows.aging, **rows.dirty}
    for slot, value in newer.items():
        if value is not None:
            yield slot

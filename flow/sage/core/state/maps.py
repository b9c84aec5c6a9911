"""A map for each key, kept as one value: for backends in which a value is never read or written in part."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from sage.core.state.base import StateTable
from sage.core.state.ttl import Ttl

__all__ = ["DictMapTable", "TtlMapTable"]


class DictMapTable:
    """A MapTable over a StateTable whose values are dicts."""

    __slots__ = ("_table",)

    def __init__(self, table: StateTable) -> None:
        self._table = table

    def get(self, entry: Hashable, namespace: Hashable = None) -> Any:
        """See MapTable."""
        entries = self._table.get(namespace)
        return None if entries is None else entries.get(entry)

    def put(self, entry: Hashable, value: Any, namespace: Hashable = None) -> None:
        """See MapTable."""
        if value is None:
            self.remove(entry, namespace)
            return
        entries = self._table.get(namespace)
        if entries is None:
            entries = {}
        entries[entry] = value
        self._table.put(entries, namespace)

    def remove(self, entry: Hashable, namespace: Hashable = None) -> None:
        """See MapTable."""
        entries = self._table.get(namespace)
        if entries is not None and entry in entries:
            del entries[entry]
            self._table.put(entries or None, namespace)

    def items(self, namespace: Hashable = None) -> list[tuple[Any, Any]]:
        """See MapTable."""
        return list((self._table.get(namespace) or {}).items())

    def clear(self, namespace: Hashable = None) -> None:
        """See MapTable."""
        self._table.clear(namespace)

    def keys(self, namespace: Hashable = None) -> Iterable[Any]:
        """See MapTable."""
        return self._table.keys(namespace)


class TtlMapTable:
    """A MapTable over one whose values are (time, value): each entry lives on its own."""

    __slots__ = ("_rows", "_ttl", "clear", "keys", "remove")

    def __init__(self, rows: Any, ttl: Ttl) -> None:
        self._rows = rows
        self._ttl = ttl
        self.remove, self.clear, self.keys = rows.remove, rows.clear, rows.keys

    def get(self, entry: Hashable, namespace: Hashable = None) -> Any:
        """See MapTable."""
        row = self._rows.get(entry, namespace)
        return None if row is None else self._alive(entry, row, namespace)

    def put(self, entry: Hashable, value: Any, namespace: Hashable = None) -> None:
        """See MapTable."""
        self._rows.put(entry, None if value is None else (self._ttl.now(), value), namespace)

    def items(self, namespace: Hashable = None) -> list[tuple[Any, Any]]:
        """See MapTable."""
        found = ((entry, self._alive(entry, row, namespace)) for entry, row in self._rows.items(namespace))
        return [(entry, value) for entry, value in found if value is not None]

    def _alive(self, entry: Hashable, row: Any, namespace: Hashable) -> Any:
        if self._ttl.expired(row):
            self._rows.remove(entry, namespace)
            return row[1] if self._ttl.show_expired else None
        if self._ttl.renew_on_read:
            self.put(entry, row[1], namespace)
        return row[1]

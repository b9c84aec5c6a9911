"""Removes rows that have expired and that nobody reads: some rows a step, round and round the database."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from sage.core.state.rocksdb.cache import CachedRows
from sage.core.state.rocksdb.rows import decode, table_of

__all__ = ["Sweep"]

_ROWS = 256


class Sweep:
    """Of the tables that were added; rows that are dirty come to the database, and are met there."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], tuple[CachedRows, Callable[[Any], bool]]] = {}
        self._after = b""

    def add(self, rows: CachedRows, expired: Callable[[Any], bool]) -> None:
        """Rows that expire; once more does no harm."""
        self._tables[table_of(rows.codec.prefix(0))] = rows, expired

    def __bool__(self) -> bool:
        return bool(self._tables)

    def step(self, db: Any) -> None:
        """Look at the next rows."""
        row, seen = b"", 0
        for row, packed in itertools.islice(db.items(from_key=self._after), _ROWS):
            seen += 1
            rows, expired = self._tables.get(table_of(row), (None, None))
            if rows is None or expired is None:
                continue
            slot, value = decode(row, packed)
            if not rows.newer(slot) and expired(value):
                rows.put(slot, None)
        self._after = row + b"\0" if seen == _ROWS else b""

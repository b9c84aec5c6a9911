"""The rows of one table between a function and the database: what is dirty, what a snapshot is writing, what was read.

A row is looked for in this order:

    dirty    changed lately; the newest value
    aging    changed some time ago, being written slice by slice; what becomes dirty again meanwhile is left out
    frozen   dirty or aging at a barrier, being written by the snapshot in another thread
    young    read or written lately        old    the generation before
    the database

`None` is a value here: the row does not exist. Values in `frozen` are copied before they are handed out, because what
is done to them must not reach the snapshot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Any

from sage.core.state.copies import own_copy
from sage.core.state.rocksdb.rows import RowCodec, value_of

__all__ = ["MISSING", "CachedRows"]

MISSING: Any = object()
_FEWEST = 64
_SAMPLE = 16


class CachedRows:
    """Rows by slot: a key, (key, namespace), or (key, namespace, entry)."""

    __slots__ = (
        "_find",
        "_limit",
        "_max_bytes",
        "_row_bytes",
        "_row_of",
        "aging",
        "codec",
        "dirty",
        "frozen",
        "old",
        "young",
    )

    def __init__(
        self,
        codec: RowCodec,
        row_of: Callable[[Any], bytes],
        find: Callable[[bytes], bytes | None],
        *,
        limit: int,
        max_bytes: int,
    ) -> None:
        self.codec = codec
        self._row_of = row_of
        self._find = find
        self._limit = limit
        self._max_bytes = max_bytes
        self._row_bytes = 0.0
        self.dirty: dict[Any, Any] = {}
        self.aging: dict[Any, Any] = {}
        self.frozen: dict[Any, Any] = {}
        self.young: dict[Any, Any] = {}
        self.old: dict[Any, Any] = {}

    def get(self, slot: Hashable) -> Any:
        """The value; None when there is none."""
        value = self.dirty.get(slot, MISSING)
        return self.get_clean(slot) if value is MISSING else value

    def get_clean(self, slot: Hashable) -> Any:
        """The value of a row that is not dirty."""
        if self.aging:
            value = self.aging.get(slot, MISSING)
            if value is not MISSING:
                return value
        if self.frozen:
            value = self.frozen.get(slot, MISSING)
            if value is not MISSING:
                return own_copy(value)
        value = self.young.get(slot, MISSING)
        if value is not MISSING:
            return value
        value = self.old.get(slot, MISSING)
        if value is MISSING:
            value = self._load(slot)
        self.keep(slot, value)
        return value

    def put(self, slot: Hashable, value: Any) -> None:
        """Set a value; None removes the row."""
        self.dirty[slot] = value

    def keep(self, slot: Hashable, value: Any) -> None:
        """Remember a value that is in the database; the older half is let go of when there are too many."""
        self.young[slot] = value
        if len(self.young) >= self._limit:
            self.old, self.young = self.young, {}

    def freeze(self) -> None:
        """Set what is dirty apart for a snapshot."""
        assert not self.frozen, "one snapshot at a time"
        self.aging.update(self.dirty)
        self.frozen, self.aging, self.dirty = self.aging, {}, {}

    def written(self) -> None:
        """The snapshot has written what was frozen."""
        self.young.update(self.frozen)
        self.frozen = {}
        if len(self.young) >= self._limit:
            self.old, self.young = self.young, {}

    def not_written(self) -> None:
        """The snapshot has not written it: it is dirty still."""
        self.frozen.update(self.aging)
        self.aging, self.frozen = self.frozen, {}

    def age(self) -> None:
        """What is dirty is to be written now. Only when nothing is aging."""
        assert not self.aging, "one generation at a time"
        self.aging, self.dirty = self.dirty, {}

    def take(self, count: int, written: dict[bytes, bytes | None]) -> None:
        """Up to that many aging rows, packed, into `written` (None: to be deleted); not those that are dirty again."""
        pop, dirty, young = self.aging.popitem, self.dirty, self.young
        row_of, pack = self._row_of, self.codec.pack
        packed = None
        for _ in range(min(count, len(self.aging))):
            slot, value = pop()
            if slot not in dirty:
                young[slot] = value
                row = row_of(slot)
                written[row] = packed = None if value is None else pack(row, slot, value)
        self._look(packed)
        if len(young) >= self._limit:
            self.old, self.young = young, {}

    def newer(self, slot: Hashable) -> bool:
        """Whether the database may be behind for that slot."""
        return slot in self.dirty or slot in self.aging or slot in self.frozen

    def encode(self, rows: list[tuple[Any, Any]]) -> dict[bytes, bytes | None]:
        """Rows, packed; None: to be deleted."""
        row_of, pack = self._row_of, self.codec.pack
        written: dict[bytes, bytes | None] = {}
        for slot, value in rows:
            row = row_of(slot)
            written[row] = None if value is None else pack(row, slot, value)
        return written

    @property
    def row_bytes(self) -> float:
        """How large a packed row is, from those seen lately, or from some that are dirty."""
        if not self._row_bytes:
            for packed in self.encode(list(itertools.islice(self.dirty.items(), _SAMPLE))).values():
                self._look(packed)
        return self._row_bytes

    def _look(self, packed: bytes | None) -> None:
        if packed is not None:
            self._row_bytes += (len(packed) - self._row_bytes) * (1 / 16 if self._row_bytes else 1)

    def shrink(self) -> None:
        """Keep fewer rows when they have grown large: `limit` of them must not take more than `max_bytes`, packed."""
        fitting = int(self._max_bytes / max(self._row_bytes, 1.0))
        if fitting < len(self.young):
            self.old, self.young = {}, {}
        self._limit = min(self._limit, max(_FEWEST, fitting))

    def _load(self, slot: Hashable) -> Any:
        row = self._row_of(slot)
        packed = self._find(row)
        if packed is None:
            return None
        self._look(packed)
        return value_of(row, packed)

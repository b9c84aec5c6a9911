"""A savepoint from RocksDB: all rows, in the file that every backend can read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage.core.state.group_file import GroupFileWriter
from sage.core.state.restored import dump_block
from sage.core.state.rocksdb.options import RocksSettings, open_database
from sage.core.state.rocksdb.rows import ENTRY, PLAIN, decode, table_of

__all__ = ["write_rows"]

_BLOCK_ROWS = 4096

Entry = tuple[Any, Any, Any]  # key, namespace, value


def write_rows(file: GroupFileWriter, database: Path, settings: RocksSettings, tables: dict[str, int]) -> None:
    """All rows of a database into the file. `tables`: the numbers of the tables by name."""
    names = {number: name for name, number in tables.items()}
    db = open_database(database, settings, read_only=True)
    try:
        for (group, table, kind), rows in itertools.groupby(db.items(), _place):
            decoded = (decode(row, packed) for row, packed in rows)
            entries = _maps(decoded) if kind == ENTRY else _values(decoded, kind)
            while block := list(itertools.islice(entries, _BLOCK_ROWS)):
                keys, namespaces, values = zip(*block, strict=True)
                file.add(f"table:{names[table]}", group, dump_block(keys, namespaces, values))
    finally:
        db.close()


def _place(row: tuple[Any, Any]) -> tuple[int, int, int]:
    return row[0][0], *table_of(row[0])


def _values(decoded: Iterator[tuple[Any, Any]], kind: int) -> Iterator[Entry]:
    for slot, value in decoded:
        yield (slot, None, value) if kind == PLAIN else (*slot, value)


def _maps(decoded: Iterator[tuple[Any, Any]]) -> Iterator[Entry]:
    """Entries of a map are neighbours: each map becomes one value."""
    for (key, namespace), entries in itertools.groupby(decoded, lambda entry: entry[0][:2]):
        yield key, namespace, {slot[2]: value for slot, value in entries}

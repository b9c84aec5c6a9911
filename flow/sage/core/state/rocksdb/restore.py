"""Fills a database from RocksDB checkpoints: the largest part by hard links, the rest row by row.

When the parallelism has changed, the checkpoint with most of our groups becomes the database and loses the groups that
are not ours by a range deletion (as Flink does); the rows of the other checkpoints are copied in.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.common.errors import StateError
from sage.core.state.base import StateSnapshot
from sage.core.state.rocksdb.options import RocksSettings, open_database, without_log, write_batch
from sage.core.state.rocksdb.rows import table_of
from sage.core.state.rocksdb.snapshots import checksum

__all__ = ["KnownFiles", "RocksPart", "clip", "copy_rows", "link_files"]

KnownFiles = dict[str, tuple[str, int, int]]
_BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class RocksPart:
    """One subtask's RocksDB checkpoint, and how many of our groups it may have."""

    folder: Path
    snapshot: StateSnapshot
    overlap: int

    @property
    def tables(self) -> dict[str, int]:
        """Numbers of the tables."""
        tables: dict[str, int] = self.snapshot.meta["tables"]
        return tables


def link_files(part: RocksPart, target: Path) -> KnownFiles:
    """Bring the checkpoint's files into a new folder. Raises StateError, naming the file, for a damaged one.

    Returns its SST files: local name → (name in the shared folder, size, checksum).
    """
    target.mkdir(parents=True)
    known: KnownFiles = {}
    for name, (way, size, total) in part.snapshot.meta["files"].items():
        path = part.folder / way
        _check(path, size, total)
        if name.endswith(".sst"):
            known[name] = (path.name, size, total)
            try:
                os.link(path, target / name)
                continue
            except OSError:
                pass  # another file system
        shutil.copyfile(path, target / name)
    return known


def _check(path: Path, size: int, total: int) -> None:
    try:
        found = path.stat().st_size
        good = found == size and checksum(path) == total
    except OSError as error:
        raise StateError(f"The state file {path} cannot be read", cause=str(error)) from error
    if not good:
        raise StateError(
            f"The state file {path} is damaged",
            cause=f"it has {found} bytes, {size} were written" if found != size else "its sum is wrong",
            hint="restore from another checkpoint or savepoint",
        )


def clip(db: Any, first: int, last: int) -> None:
    """Remove the rows of groups that are not from `first` to `last`."""
    if first > 0:
        db.delete_range(bytes([0]), bytes([first]), without_log())
    db.delete_range(bytes([last + 1]), bytes([255]), without_log())


def copy_rows(
    db: Any, part: RocksPart, own: tuple[int, int], numbers: dict[int, int], scratch: Path, settings: RocksSettings
) -> None:
    """The rows of our groups from another checkpoint. `numbers`: its tables' numbers → ours."""
    link_files(part, scratch)
    other = open_database(scratch, settings, read_only=True)
    try:
        batch, written = write_batch(), without_log()
        for row, packed in other.items(from_key=bytes([own[0]])):
            if row[0] > own[1]:
                break
            table, kind = table_of(row)
            batch.put(row[:1] + (numbers[table] * 4 + kind).to_bytes(2, "big") + row[3:], packed)
            if len(batch) >= _BATCH_ROWS:
                db.write(batch, written)
                batch = write_batch()
        db.write(batch, written)
    finally:
        other.close()
        shutil.rmtree(scratch, ignore_errors=True)

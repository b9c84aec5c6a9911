"""The keyed backend over RocksDB: cached rows before a database of its own, in a local folder.

What is dirty is written by and by in the task's thread, between batches (`flush_slice`), so that little is left at a
barrier; at the barrier itself nothing is written (see `snapshots`). The database's own log is off: what survives a
failure is the last checkpoint, and the local folder is thrown away.

A backend belongs to one process: RocksDB's threads do not survive a fork.
"""

from __future__ import annotations

import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage.common.errors import StateError
from sage.core.runtime.clock import Clock, SystemClock
from sage.core.state.base import NO_KEY, MapTable, RawState, SnapshotRequest, StateSnapshot, StateTable
from sage.core.state.group_file import GroupFileReader
from sage.core.state.maps import TtlMapTable
from sage.core.state.restored import RestoredBlocks, load_block
from sage.core.state.rocksdb.cache import CachedRows
from sage.core.state.rocksdb.options import RocksSettings, check_installed, open_database, without_log, write_batch
from sage.core.state.rocksdb.restore import KnownFiles, RocksPart, clip, copy_rows, link_files
from sage.core.state.rocksdb.rows import RowCodec, key_bytes
from sage.core.state.rocksdb.snapshots import RAW_FILE, Freeze, WritingSnapshot, flush_memtable
from sage.core.state.rocksdb.sweep import Sweep
from sage.core.state.rocksdb.tables import MapRows, RocksMapTable, RocksTable, live_slots
from sage.core.state.ttl import Ttl, TtlTable

__all__ = ["RocksKeyedState"]

_HARD_LIMIT = 8
_SURELY_FITS = 256  # so many dirty rows are never too many
_SWEEP_EVERY_S = 0.01


class RocksKeyedState:
    """The KeyedStateBackend of one operator in one subtask. `folder` is made, and removed by `close`."""

    def __init__(
        self,
        first: int,
        last: int,
        *,
        folder: Path,
        clock: Clock | None = None,
        settings: RocksSettings | None = None,
    ) -> None:
        check_installed()
        clock = clock or SystemClock()
        self.key: Any = NO_KEY
        self.now_ms = clock.now_ms
        self.groups = (first, last)
        self._process = os.getpid()
        self.settings = settings or RocksSettings()
        self.instance = uuid.uuid4().hex[:12]
        self.known_files: KnownFiles = {}
        self._monotonic = clock.monotonic
        self._folder = folder
        self._opened: Any = None
        self._tables: dict[str, RocksTable | RocksMapTable] = {}
        self._numbers: dict[str, int] = {}
        self._stores: list[CachedRows] = []
        self._raw: dict[str, RawState] = {}
        self._restored = RestoredBlocks()
        self._freeze: Freeze | None = None
        self._sweep = Sweep()
        self._swept = 0.0

    def table(self, name: str, schema: str, *, ttl_ms: int | None = None, ttl: Ttl | None = None) -> StateTable:
        """See KeyedStateBackend."""
        ttl = ttl or (Ttl(ttl_ms, self.now_ms) if ttl_ms else None)
        rows = self._declare(name, schema, RocksTable, ttl)
        return TtlTable(rows, ttl) if ttl else rows

    def map_table(self, name: str, schema: str, *, ttl: Ttl | None = None) -> MapTable:
        """See KeyedStateBackend."""
        rows = self._declare(name, schema, RocksMapTable, ttl)
        return TtlMapTable(rows, ttl) if ttl else rows

    def _declare(self, name: str, schema: str, kind: type[Any], ttl: Ttl | None) -> Any:
        self._restored.check(name, schema)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = kind(self, name, self._number(name))
            for _group, block in self._restored.take(name):
                table.load(*load_block(name, block))
                self.flush_slice()
        if ttl is not None:
            for rows in table.stores():
                self._sweep.add(rows, ttl.expired)
        return table

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def raw(self, name: str, state: RawState) -> None:
        """See KeyedStateBackend."""
        self._raw[name] = state
        parts = self._restored.take_raw(name)
        if parts:
            state.load(parts)

    def rows(self, codec: RowCodec, row_of: Callable[[Any], bytes]) -> CachedRows:
        """Cached rows of a table, which are written with all others."""
        cached: CachedRows = self._cached(CachedRows, codec, row_of)
        return cached

    def map_rows(self, codec: RowCodec) -> MapRows:
        """As `rows`, for a map."""
        rows: MapRows = self._cached(MapRows, codec, lambda slot: codec.of_map((slot[0], slot[1])) + key_bytes(slot[2]))
        return rows

    def _cached(self, kind: type[CachedRows], codec: RowCodec, row_of: Callable[[Any], bytes]) -> Any:
        settings = self.settings
        rows = kind(codec, row_of, self._db.get, limit=settings.cached_rows, max_bytes=settings.cached_bytes)
        self._stores.append(rows)
        return rows

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(row, value) in the database, of rows that begin so."""
        return itertools.takewhile(lambda item: item[0].startswith(prefix), self._db.items(from_key=prefix))

    def slots(self, rows: CachedRows) -> list[Any]:
        """All slots with a value."""
        return list(live_slots(rows, self._all_rows(rows.codec)))

    def _all_rows(self, codec: RowCodec) -> Iterator[tuple[bytes, bytes]]:
        iterator = self._db.iter()
        for group in range(self.groups[0], self.groups[1] + 1):
            prefix = codec.prefix(group)
            iterator.seek(prefix)
            while iterator.valid() and (row := iterator.key()).startswith(prefix):
                yield row, iterator.value()
                iterator.next()

    def flush_slice(self) -> None:
        """See KeyedStateBackend: writes some of the rows that have been dirty long, and removes some that have expired.

        While a snapshot is being written nothing else may be; with too much dirty, the task takes part in that.
        """
        self._retire()
        dirty, limit = sum(len(rows.dirty) for rows in self._stores), self.settings.dirty_rows
        if dirty > _SURELY_FITS:
            largest = max(rows.row_bytes for rows in self._stores if rows.dirty)
            limit = min(limit, max(_SURELY_FITS, int(self.settings.cached_bytes / (largest or 1.0))))
        if self._freeze is not None and dirty > _HARD_LIMIT * limit:
            self._freeze.link()
            self._retire()
        if self._freeze is None:
            self._write_slice(dirty - limit)
        if self._sweep and self._monotonic() - self._swept >= _SWEEP_EVERY_S:
            self._swept = self._monotonic()
            self._sweep.step(self._db)

    def _write_slice(self, excess: int) -> None:
        """Some aging rows; when there are none, and too many are dirty, these begin to age."""
        aging = [rows for rows in self._stores if rows.aging]
        if not aging and excess > 0:
            for rows in self._stores:
                rows.shrink()
                rows.age()
            aging = [rows for rows in self._stores if rows.aging]
        count = self.settings.slice_rows + max(0, excess) // 16
        written: dict[bytes, bytes | None] = {}
        for rows in aging:
            rows.take(count - len(written), written)
        if written:
            self._write(written)

    def _write(self, rows: dict[bytes, bytes | None]) -> None:
        """Write rows in their order, which RocksDB takes in half the time; None deletes."""
        batch = write_batch()
        for row in sorted(rows):
            packed = rows[row]
            if packed is None:
                batch.delete(row)
            else:
                batch.put(row, packed)
        try:
            self._db.write(batch, without_log())
        except Exception as error:  # rocksdict raises plain Exception
            raise StateError(f"RocksDB in {self._folder} cannot be written", cause=str(error)) from error

    def snapshot(self, request: SnapshotRequest) -> Callable[[], StateSnapshot]:
        """See KeyedStateBackend."""
        if os.getpid() != self._process:
            raise StateError(
                "RocksDB state does not work in a forked process",
                cause="RocksDB's threads are left behind, and its checkpoints hang",
                hint="start worker processes by spawn",
            )
        if self._freeze is not None:
            self._freeze.link()
            self._retire()
        if not self.settings.incremental:
            request = replace(request, previous=None)
        for rows in self._stores:
            rows.freeze()
        self._freeze = Freeze(self._write_frozen, request.folder / "db")
        raw = {name: state.dump() for name, state in self._raw.items()}
        meta = dict(self._restored.schema), dict(self._numbers), self._restored.unclaimed()
        return WritingSnapshot(self, request, self._freeze, raw, meta)

    def _write_frozen(self, target: Path) -> None:
        """What was dirty at the barrier into the database, and RocksDB's own checkpoint. Not in the task's thread."""
        from rocksdict import Checkpoint

        for rows in list(self._stores):
            frozen = iter(list(rows.frozen.items()))
            while part := list(itertools.islice(frozen, self.settings.slice_rows)):
                self._write(rows.encode(part))
        try:
            flush_memtable(self._db)
            Checkpoint(self._db).create_checkpoint(str(target))
        except Exception as error:  # rocksdict raises plain Exception
            raise StateError(f"RocksDB cannot make a checkpoint in {target}", cause=str(error)) from error

    def _retire(self) -> None:
        freeze = self._freeze
        if freeze is None or not freeze.is_over:
            return
        self._freeze = None
        for rows in self._stores:
            if freeze.done:
                rows.written()
            else:
                rows.not_written()

    def restore(self, snapshots: list[tuple[Path, StateSnapshot]]) -> None:
        """See KeyedStateBackend."""
        first, last = self.groups
        parts = []
        for folder, snapshot in snapshots:
            self._restored.expect(snapshot.schema)
            own = range(max(first, snapshot.groups[0]), min(last, snapshot.groups[1]) + 1)
            is_rocks = snapshot.backend == "rocksdb"
            if is_rocks and own:
                parts.append(RocksPart(folder, snapshot, len(own)))
            for file in [RAW_FILE] if is_rocks and RAW_FILE in snapshot.files else [] if is_rocks else snapshot.files:
                for table, group, block in GroupFileReader(folder / file).blocks(own):
                    self._restored.add(table, group, block)
        if parts:
            self._restore_parts(sorted(parts, key=lambda part: -part.overlap))

    def _restore_parts(self, parts: list[RocksPart]) -> None:
        base, *others = parts
        first, last = self.groups
        self.known_files = link_files(base, self._folder / "db")
        self._numbers.update(base.tables)
        if base.snapshot.groups[0] < first or base.snapshot.groups[1] > last:
            clip(self._db, first, last)
        for other in others:
            numbers = {number: self._number(name) for name, number in other.tables.items()}
            copy_rows(self._db, other, self.groups, numbers, self._folder / "import", self.settings)

    @property
    def _db(self) -> Any:
        if self._opened is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._opened = open_database(self._folder / "db", self.settings)
        return self._opened

    @property
    def size(self) -> int:
        """See KeyedStateBackend."""
        if self._opened is None:
            return 0
        names = ("rocksdb.estimate-live-data-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._db.property_int_value(name) or 0 for name in names)

    def close(self) -> None:
        """See KeyedStateBackend; a snapshot that was begun, and not given up, gets its rows before."""
        if self._freeze is not None:
            self._freeze.link()
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._stores.clear()
        self._tables.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

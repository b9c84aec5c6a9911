"""A snapshot of the database: the part that may run in another thread, and the files of a checkpoint.

At the barrier the dirty rows are only set apart. Then, in another thread: they are written, the memtable is flushed,
RocksDB makes a checkpoint of its own (hard links), and its SST files move to the job's shared folder under names that
are used once. Files that the previous checkpoint has already are named, not kept twice.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from sage.common.errors import StateError
from sage.core.state.base import SnapshotRequest, StateSnapshot
from sage.core.state.group_file import GroupFileWriter

if TYPE_CHECKING:
    from sage.core.state.rocksdb.backend import RocksKeyedState

__all__ = ["LINKED", "RAW_FILE", "Freeze", "WritingSnapshot", "checksum", "flush_memtable"]

LINKED = "db"
RAW_FILE = "raw.state"
_POLL_S = 0.001
_CHUNK = 1 << 20


class Freeze:
    """The frozen rows of one snapshot. Whoever comes first writes them: the snapshot's thread, or a task that waits."""

    def __init__(self, write: Callable[[Path], None], target: Path) -> None:
        self._write = write
        self._target = target
        self._lock = threading.RLock()  # may be taken by a finaliser in the thread that holds it
        self.done = False
        self.abandoned = False
        self.error: BaseException | None = None

    def link(self) -> None:
        """Write the rows and make RocksDB's checkpoint in `target`, unless that was done or tried. Raises nothing."""
        with self._lock:
            if self.done or self.error is not None or self.abandoned:
                return
            try:
                self._write(self._target)
                self.done = True
            except BaseException as error:
                self.error = error
                shutil.rmtree(self._target, ignore_errors=True)

    def abandon(self) -> None:
        """The snapshot will not be asked for any more."""
        with self._lock:
            self.abandoned = not self.done

    @property
    def is_over(self) -> bool:
        """Whether nobody writes the frozen rows any more."""
        return self.done or self.abandoned or self.error is not None


class WritingSnapshot:
    """What `snapshot` returns."""

    def __init__(
        self,
        backend: RocksKeyedState,
        request: SnapshotRequest,
        freeze: Freeze,
        raw: dict[str, Iterable[tuple[int, bytes]]],
        meta: tuple[dict[str, str], dict[str, int], list[tuple[str, int, bytes]]],
    ) -> None:
        self._backend = backend
        self._request = request
        self._freeze = freeze
        self._raw = raw
        self._schema, self._tables, self._kept = meta

    def __call__(self) -> StateSnapshot:
        """Do the rest. Raises StateError, or what the file system raises."""
        self._freeze.link()
        if self._freeze.error is not None:
            raise self._freeze.error
        if not self._freeze.done:
            raise StateError("This part of a checkpoint was given up")
        backend = "portable" if self._request.savepoint else "rocksdb"
        snapshot = StateSnapshot(backend, self._backend.groups, schema=self._schema)
        if self._request.savepoint:
            self._write_savepoint(snapshot)
        else:
            move_to_shared(self._backend, self._request, snapshot)
            snapshot.meta["tables"] = self._tables
            if self._raw or self._kept:
                self._write_raw(snapshot)
        return snapshot

    def __del__(self) -> None:
        self._freeze.abandon()

    def _write_raw(self, snapshot: StateSnapshot) -> None:
        with GroupFileWriter(self._request.folder / RAW_FILE) as file:
            self._add_raw(file)
        _count(snapshot, RAW_FILE, file.written)

    def _write_savepoint(self, snapshot: StateSnapshot) -> None:
        from sage.core.state.rocksdb.savepoints import write_rows

        linked = self._request.folder / LINKED
        try:
            with GroupFileWriter(self._request.folder / "keyed.state") as file:
                write_rows(file, linked, self._backend.settings, self._tables)
                self._add_raw(file)
        finally:
            shutil.rmtree(linked, ignore_errors=True)
        _count(snapshot, "keyed.state", file.written)

    def _add_raw(self, file: GroupFileWriter) -> None:
        for name, parts in self._raw.items():
            for group, block in parts:
                file.add(f"raw:{name}", group, block)
        for name, group, block in self._kept:
            file.add(name, group, block)


def _count(snapshot: StateSnapshot, name: str, size: int) -> None:
    snapshot.files.append(name)
    snapshot.written += size
    snapshot.size += size


def move_to_shared(backend: RocksKeyedState, request: SnapshotRequest, snapshot: StateSnapshot) -> None:
    """The files of RocksDB's checkpoint to where they belong, named and summed in the snapshot's `meta`."""
    linked = request.folder / LINKED
    before = request.previous.meta.get("files", {}) if request.previous else {}
    way = os.path.relpath(request.shared, request.folder)
    files: dict[str, list[Any]] = {}
    for path in sorted(linked.iterdir()):
        known = backend.known_files.get(path.name)
        if path.suffix != ".sst":
            name, size, total = f"{LINKED}/{path.name}", path.stat().st_size, checksum(path)
            snapshot.written += size
        elif known is not None and path.name in before and Path(before[path.name][0]).name == known[0]:
            shared, size, total = known
            name = f"{way}/{shared}"
            path.unlink()
        else:
            shared = f"{backend.instance}-{request.checkpoint_id}-{path.name}"
            name, size, total = f"{way}/{shared}", path.stat().st_size, checksum(path)
            path.rename(request.shared / shared)
            backend.known_files[path.name] = (shared, size, total)
            snapshot.written += size
        files[path.name] = [name, size, total]
        snapshot.files.append(name)
        snapshot.size += size
    snapshot.meta["files"] = files


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = crc32(chunk, total)
    return total


def flush_memtable(db: Any) -> None:
    """Until RocksDB has written its memtable; its own threads do it, and Python's go on meanwhile.

    Raises OSError when RocksDB cannot (a full disk): it would be tried for ever.
    """
    failed = db.property_int_value("rocksdb.background-errors") or 0
    db.flush(False)
    while db.property_int_value("rocksdb.num-immutable-mem-table"):
        if (db.property_int_value("rocksdb.background-errors") or 0) > failed:
            raise OSError("RocksDB's background work failed: is the disk full?")
        time.sleep(_POLL_S)

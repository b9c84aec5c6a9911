"""The file in which state is written group by group: of the memory backend's checkpoints, and of every savepoint.

    magic · block · block · … · footer (msgpack: [table, group, offset, length, crc32] of each block) · its length and
    crc32 · magic

A table's groups may have several blocks each. A restore reads the footer and then only the blocks of its own groups;
every block it reads is checked against its sum, so a file that was cut or damaged is told from a good one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from zlib import crc32

import msgspec

from sage.common.errors import StateError

__all__ = ["GroupFileReader", "GroupFileWriter"]

_MAGIC = b"SAGESTA1"
_TAIL = struct.Struct(">II8s")

Entry = tuple[str, int, int, int, int]


class GroupFileWriter:
    """Writes one file; complete and on disk when the `with` block ends, removed when it ends by an exception."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self._entries: list[Entry] = []
        self._file.write(_MAGIC)
        self.written = len(_MAGIC)

    def add(self, table: str, group: int, block: bytes) -> None:
        """One more block of a table's group."""
        self._entries.append((table, group, self.written, len(block), crc32(block)))
        self._file.write(block)
        self.written += len(block)

    def __enter__(self) -> GroupFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                footer = msgspec.msgpack.encode(self._entries)
                self._file.write(footer + _TAIL.pack(len(footer), crc32(footer), _MAGIC))
                self.written += len(footer) + _TAIL.size
                self._file.flush()
                os.fsync(self._file.fileno())
        except BaseException:
            kind = kind or OSError
            raise
        finally:
            self._close(remove=kind is not None)

    def _close(self, *, remove: bool) -> None:
        try:
            self._file.close()
        finally:
            if remove:
                self._path.unlink(missing_ok=True)


class GroupFileReader:
    """Reads what a writer wrote. Every method raises StateError, naming the file, when it is torn or missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._entries = self._footer(file.read(len(_MAGIC)), file.seek(0, os.SEEK_END))
        except OSError as error:
            raise StateError(f"The state file {path} cannot be read", cause=str(error)) from error

    def _footer(self, magic: bytes, size: int) -> list[Entry]:
        if magic != _MAGIC or size < len(_MAGIC) + _TAIL.size:
            raise self._torn("it does not begin as a state file does")
        with self._path.open("rb") as file:
            file.seek(size - _TAIL.size)
            length, checksum, end = _TAIL.unpack(file.read(_TAIL.size))
            if end != _MAGIC or length > size - _TAIL.size - len(_MAGIC):
                raise self._torn("it has no end: it was cut short, or written over")
            file.seek(size - _TAIL.size - length)
            footer = file.read(length)
        if crc32(footer) != checksum:
            raise self._torn("the sum of its index is wrong")
        return msgspec.msgpack.decode(footer, type=list[Entry])

    def _torn(self, cause: str) -> StateError:
        return StateError(
            f"The state file {self._path} is damaged", cause=cause, hint="restore from another checkpoint or savepoint"
        )

    def blocks(self, groups: Iterable[int]) -> Iterator[tuple[str, int, bytes]]:
        """(table, group, block) of those groups, in the order in which they were written."""
        wanted = set(groups)
        try:
            with self._path.open("rb") as file:
                for table, group, offset, length, checksum in self._entries:
                    if group not in wanted:
                        continue
                    file.seek(offset)
                    block = file.read(length)
                    if len(block) != length or crc32(block) != checksum:
                        raise self._torn(f"the sum of group {group} of {table!r} is wrong")
                    yield table, group, block
        except OSError as error:
            raise StateError(f"The state file {self._path} cannot be read", cause=str(error)) from error

"""Lines of text, and lines of JSON. A large file is read in parts, which subtasks share.

A line belongs to the part in which its first byte lies. A position is [offset of the next line, end of the part].
"""

from __future__ import annotations

import codecs
from abc import abstractmethod
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from sage.common.errors import PipelineError
from sage.core.connectors.base import BadRecord
from sage.core.connectors.files.paths import file_errors, is_packed, open_bytes
from sage.core.connectors.files.source import FileFormat
from sage.core.connectors.splits import Cursor

__all__ = ["JsonLines", "LineFormat", "TextLines", "checked_encoding"]

T = TypeVar("T")
PART_SIZE = 32 * 2**20
_BOM = codecs.BOM_UTF8
_json = msgspec.json.Decoder()


def checked_encoding(encoding: str) -> str:
    """The encoding's name. Raises PipelineError for one that is unknown, or in which lines do not end with a byte."""
    try:
        known = codecs.lookup(encoding)
        newline = "\n".encode(known.name)
    except (LookupError, UnicodeError) as error:
        raise PipelineError(f"{encoding!r} is no encoding of text", hint="for example utf-8 or latin-1") from error
    if newline != b"\n":
        raise PipelineError(
            f"Lines in {encoding!r} are not supported",
            cause="lines are found by the byte of a newline",
            hint="convert the file: iconv -t utf-8",
        )
    return "utf-8" if known.name == "utf-8-sig" else known.name


@dataclass(frozen=True)
class LineFormat(FileFormat[T]):
    """Files whose records are lines."""

    part_size: int = PART_SIZE

    @abstractmethod
    def decode(self, lines: list[bytes], cursor: LineCursor[T]) -> list[T]:
        """The records of whole lines (with their line ends), in order."""

    def parts(self, path: str) -> list[str]:
        """See FileFormat: `start-end`, the last one open at its end."""
        if is_packed(path):
            return ["0-"]
        with file_errors(path, "read"):
            size = Path(path).stat().st_size
        starts = range(0, max(1, size), self.part_size)
        return [f"{start}-{'' if start == starts[-1] else start + self.part_size}" for start in starts]

    def open(self, path: str, part: str, position: Any, bad_record: BadRecord) -> Cursor[T]:
        """See FileFormat."""
        start, _, end = part.partition("-")
        return LineCursor(self, path, int(start), int(end) if end else None, position, bad_record)


class LineCursor(Cursor[T]):
    """Reads the lines of a part of a file."""

    def __init__(
        self,
        line_format: LineFormat[T],
        path: str,
        start: int,
        end: int | None,
        position: Any,
        bad_record: BadRecord,
    ) -> None:
        self.path = path
        self._format = line_format
        self._bad_record = bad_record
        self._end: int | None = end
        self.offset = start
        self._file: IO[bytes]
        if position is not None:
            self.offset, self._end = position
            self._file = open_bytes(path, self.offset)
        elif start == 0:
            self._file = open_bytes(path)
        else:
            self._file = open_bytes(path, start - 1)
            self.offset += len(self._file.readline()) - 1  # the rest of a line of the part before

    @property
    def position(self) -> Any:
        """See Cursor."""
        return [self.offset, self._end]

    def read(self, limit: int) -> list[T] | None:
        """See Cursor."""
        records: list[T] = []
        while not records:  # all lines may have been empty or bad
            if self._end is not None and self.offset >= self._end:
                return None
            with file_errors(self.path, "read"):
                lines = list(islice(self._file, limit))
            if not lines:
                return None
            size = sum(map(len, lines))
            if self._end is not None and self.offset + size > self._end:
                lines = self._own(lines, self._end)
                size = sum(map(len, lines))
            if self.offset == 0 and lines[0].startswith(_BOM):
                lines[0] = lines[0][len(_BOM) :]
            records = self._format.decode(lines, self)
            self.offset += size
        return records

    def bad(self, number: int, lines: list[bytes], error: Exception) -> None:
        """A line (of those that are read now) that is no record. Raises, unless the job leaves out such records."""
        offset = self.offset + sum(map(len, lines[:number]))
        problem = PipelineError(
            f"{self.path} has a bad line at byte {offset:,}",
            cause=str(error),
            hint="mend it, or let the job leave out such records: on_error: skip or dead-letter",
        )
        problem.__cause__ = error
        self._bad_record(lines[number].rstrip(b"\r\n").decode("utf-8", "backslashreplace"), problem)

    def close(self) -> None:
        """See Cursor."""
        self._file.close()

    def _own(self, lines: list[bytes], end: int) -> list[bytes]:
        """Those that begin before the end of the part."""
        offset = self.offset
        for number, line in enumerate(lines):
            if offset >= end:
                return lines[:number]
            offset += len(line)
        return lines


@dataclass(frozen=True)
class TextLines(LineFormat[str]):
    """Each line without its end is a record. `errors` as of `bytes.decode`: strict, replace, ignore, …"""

    encoding: str = "utf-8"
    errors: str = "strict"

    def decode(self, lines: list[bytes], cursor: LineCursor[str]) -> list[str]:
        """See LineFormat."""
        try:
            text = b"".join(lines).decode(self.encoding, self.errors)
        except UnicodeError:
            return self._each(lines, cursor)
        records = text.split("\n")
        if text.endswith("\n"):
            records.pop()
        return [line.removesuffix("\r") for line in records] if "\r" in text else records

    def _each(self, lines: list[bytes], cursor: LineCursor[str]) -> list[str]:
        records = []
        for number, line in enumerate(lines):
            try:
                records.append(line.removesuffix(b"\n").removesuffix(b"\r").decode(self.encoding, self.errors))
            except UnicodeError as error:
                cursor.bad(number, lines, error)
        return records


@dataclass(frozen=True)
class JsonLines(LineFormat[Any]):
    """Each line is a JSON value; empty lines are passed over."""

    def decode(self, lines: list[bytes], cursor: LineCursor[Any]) -> list[Any]:
        """See LineFormat."""
        try:
            records = _json.decode_lines(b"".join(lines))
        except (msgspec.DecodeError, UnicodeError):
            return self._each(lines, cursor)
        return records if len(records) == len(lines) else self._each(lines, cursor)  # empty lines, or two values in one

    def _each(self, lines: list[bytes], cursor: LineCursor[Any]) -> list[Any]:
        records = []
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    records.append(_json.decode(line))
                except (msgspec.DecodeError, UnicodeError) as error:
                    cursor.bad(number, lines, error)
        return records

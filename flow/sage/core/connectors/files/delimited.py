"""Rows of CSV files. Fields may contain line ends, so a file is read as a whole; a position is the offset of a row."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sage.common.errors import PipelineError
from sage.core.connectors.base import BadRecord
from sage.core.connectors.files.paths import file_errors, open_bytes
from sage.core.connectors.files.source import FileFormat
from sage.core.connectors.splits import Cursor

__all__ = ["CsvRows"]


@dataclass(frozen=True)
class CsvRows(FileFormat[dict[str, Any]]):
    """Rows as dicts. `fields` names the columns of files that have no header; `types` converts some of them."""

    fields: tuple[str, ...] | None = None
    delimiter: str = ","
    encoding: str = "utf-8"
    types: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)

    def open(self, path: str, part: str, position: Any, bad_record: BadRecord) -> Cursor[dict[str, Any]]:
        """See FileFormat. Raises PipelineError for `types` of columns that are not there."""
        return CsvCursor(self, path, position, bad_record)


class CsvCursor(Cursor[dict[str, Any]]):
    """Reads the rows of one file."""

    position: int

    def __init__(self, rows: CsvRows, path: str, position: int | None, bad_record: BadRecord) -> None:
        self._format = rows
        self._path = path
        self._bad_record = bad_record
        self._undecodable: UnicodeError | None = None
        self._pending: deque[bytes] = deque()  # lines that were read and belong to no row yet
        self._file = open_bytes(path)
        self.position = 0
        self._reader = self._rows()
        try:
            self._fields = rows.fields or self._header()
            self._check_types(rows, self._fields)
        except BaseException:
            self._file.close()
            raise
        self._convert = [(name, rows.types[name]) for name in rows.types]
        if position is not None and position != self.position:
            self._file.close()
            self._file = open_bytes(path, position)
            self.position = position
            self._reader = self._rows()

    def read(self, limit: int) -> list[dict[str, Any]] | None:
        """See Cursor."""
        records: list[dict[str, Any]] = []
        while not records:  # all rows may have been empty or bad
            if not self._pending:
                with file_errors(self._path, "read"):
                    lines = list(islice(self._file, limit))
                if not lines:
                    break
                records = self._quick(b"".join(lines))
                if records:
                    break
                self._pending.extend(lines)
            records = self._careful(limit)
        return records or None

    def _quick(self, data: bytes) -> list[dict[str, Any]]:
        """The records of whole lines that are a row each; none where one needs a closer look."""
        if b'"' in data or self.position == 0:
            return []
        try:
            lines = data.decode(self._format.encoding).split("\n")
            rows = list(csv.reader(lines, delimiter=self._format.delimiter, strict=True))
            records = [dict(zip(self._fields, row, strict=True)) for row in rows if row]
            for name, convert in self._convert:
                for record in records:
                    record[name] = convert(record[name])
        except Exception:  # whatever it is, it is found again and told
            return []
        self.position += len(data) if records else 0
        return records

    def _careful(self, limit: int) -> list[dict[str, Any]]:
        """Row by row, at least until the lines that were read ahead are used up."""
        records: list[dict[str, Any]] = []
        while self._pending and len(records) < limit:
            start = self.position
            try:
                with file_errors(self._path, "read"):
                    row = next(self._reader, None)
                if row is None:
                    break
                if self._undecodable is not None:
                    raise self._undecodable
                if row:
                    records.append(self._record(row))
            except (csv.Error, UnicodeError, ValueError, TypeError) as error:
                self._bad(start, error)
        return records

    def close(self) -> None:
        """See Cursor."""
        self._file.close()

    def _rows(self) -> Iterator[list[str]]:
        """A row takes the lines that it needs, so that `position` stands behind it."""
        return csv.reader(self._lines(), delimiter=self._format.delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        while line := self._pending.popleft() if self._pending else self._file.readline():
            text = line.removeprefix(codecs.BOM_UTF8) if self.position == 0 else line
            self.position += len(line)
            try:
                yield text.decode(self._format.encoding)
            except UnicodeError as error:  # told when the row is complete
                self._undecodable = error
                yield text.decode("latin-1")

    def _check_types(self, rows: CsvRows, fields: tuple[str, ...]) -> None:
        missing = sorted(set(rows.types) - set(fields))
        if missing and fields:
            raise PipelineError(
                f"{self._path} has no column {', '.join(missing)}",
                cause=f"it has {', '.join(fields)}",
                hint="fields=[…] names the columns of a file without a header",
            )

    def _header(self) -> tuple[str, ...]:
        try:
            with file_errors(self._path, "read"):
                fields = tuple(next(self._reader, ()))
        except csv.Error as error:
            raise PipelineError(f"{self._path} has no header that can be read", cause=str(error)) from error
        if self._undecodable is not None:
            raise PipelineError(
                f"The header of {self._path} is not in {self._format.encoding}",
                cause=str(self._undecodable),
                hint='name the encoding: encoding="latin-1"',
            )
        if len(set(fields)) != len(fields):
            raise PipelineError(
                f"{self._path} has two columns of one name", cause=", ".join(fields), hint="name them with fields=[…]"
            )
        return fields

    def _record(self, row: list[str]) -> dict[str, Any]:
        if len(row) != len(self._fields):
            raise ValueError(f"{len(row)} values for {len(self._fields)} columns")
        record: dict[str, Any] = dict(zip(self._fields, row, strict=True))
        for name, convert in self._convert:
            try:
                record[name] = convert(record[name])
            except Exception as error:
                raise ValueError(f"column {name!r}: {error}") from error
        return record

    def _bad(self, start: int, error: Exception) -> None:
        self._undecodable = None
        problem = PipelineError(
            f"{self._path} has a bad row at byte {start:,}",
            cause=str(error),
            hint="mend it, or let the job leave out such records: on_error: skip or dead-letter",
        )
        problem.__cause__ = error
        with open_bytes(self._path, start) as file:
            text = file.read(min(self.position - start, 4096))
        self._bad_record(text.decode(self._format.encoding, "backslashreplace"), problem)

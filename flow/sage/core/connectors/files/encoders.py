"""Records as the bytes of a file: lines of text, lines of JSON, CSV. Parquet stands in a module of its own."""

from __future__ import annotations

import csv
import dataclasses
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from sage.common.errors import PipelineError

__all__ = ["CsvEncoder", "FileEncoder", "JsonEncoder", "RecordFile", "TextEncoder", "as_row"]


class RecordFile(ABC):
    """An open file that records are put into. A batch goes in as a whole, or raises and leaves the file as it was."""

    @abstractmethod
    def write(self, records: list[Any]) -> None:
        """Append the records."""

    @property
    @abstractmethod
    def size(self) -> int:
        """About how many bytes it has."""

    def finish(self) -> None:  # noqa: B027 - few formats want anything
        """What the format wants behind the last record. The file itself is closed by its owner."""


class FileEncoder(ABC):
    """A format of files; picklable plain data. `suffix` ends the names of files."""

    suffix: str = ""

    @abstractmethod
    def begin(self, file: IO[bytes], head: bytes = b"") -> RecordFile:
        """Put records into this file; `head` is its first line, where records are appended to what it has."""


class _Lines(RecordFile):
    def __init__(self, encoder: _LineEncoder, file: IO[bytes], head: bytes) -> None:
        self._encoder = encoder
        self._file = file
        self._size = 0
        self._state: Any = head

    def write(self, records: list[Any]) -> None:
        data, self._state = self._encoder.encode(records, self._state)
        self._file.write(data)
        self._size += len(data)

    @property
    def size(self) -> int:
        return self._size


class _LineEncoder(FileEncoder):
    def begin(self, file: IO[bytes], head: bytes = b"") -> RecordFile:
        """See FileEncoder."""
        return _Lines(self, file, head)

    @abstractmethod
    def encode(self, records: list[Any], state: Any) -> tuple[bytes, Any]:
        """The lines of the records, and what to give to the next call; the first call is given the file's head."""


@dataclass(frozen=True)
class TextEncoder(_LineEncoder):
    """`str(record)` and a newline."""

    encoding: str = "utf-8"
    suffix = ".txt"

    def encode(self, records: list[Any], state: Any) -> tuple[bytes, Any]:
        """See _LineEncoder."""
        text = "\n".join(map(str, records))
        return f"{text}\n".encode(self.encoding), state


@dataclass(frozen=True)
class JsonEncoder(_LineEncoder):
    """A line of JSON: plain data, dataclasses, dates, numbers of NumPy."""

    suffix = ".jsonl"

    def encode(self, records: list[Any], state: Any) -> tuple[bytes, Any]:
        """See _LineEncoder."""
        return _json.encode_lines(records), state


@dataclass(frozen=True)
class CsvEncoder(_LineEncoder):
    """Rows with a header, from mappings or dataclasses; from other sequences without one, unless `fields` names it.

    The fields are those of the file's first record unless they are given. Raises PipelineError for a record with
    others.
    """

    fields: tuple[str, ...] | None = None
    delimiter: str = ","
    suffix = ".csv"

    def encode(self, records: list[Any], state: Any) -> tuple[bytes, Any]:
        """See _LineEncoder; what goes from call to call: the fields, or () for rows without a header."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.delimiter, lineterminator="\n")
        fields = state
        if isinstance(state, bytes):
            fields = self._from_head(state)
        if fields is None:
            fields = self.fields or tuple(as_row(records[0]) or ())
            if fields:
                writer.writerow(fields)
        known = frozenset(fields)
        for record in records:
            row = as_row(record)
            if row is None:
                writer.writerow(record if not fields else _fitting(record, fields))
            elif row.keys() <= known:
                writer.writerow([row.get(name) for name in fields])
            else:
                raise _unfit(sorted(row.keys() - known), fields)
        return out.getvalue().encode(), fields

    def _from_head(self, head: bytes) -> tuple[str, ...] | None:
        if not head:
            return None
        first = next(csv.reader([head.decode()], delimiter=self.delimiter))
        return tuple(first) if self.fields is None or tuple(first) == self.fields else self.fields


def as_row(record: Any) -> Mapping[str, Any] | None:
    """The record's values by name: of a mapping, a dataclass or a named tuple; None for what has no names.

    Raises PipelineError for what is no row at all.
    """
    if isinstance(record, Mapping):
        return record
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    if hasattr(record, "_asdict"):
        named: Mapping[str, Any] = record._asdict()
        return named
    if isinstance(record, Sequence) and not isinstance(record, (str, bytes)):
        return None
    raise PipelineError(
        "A row must be a mapping, a dataclass, a tuple or a list",
        cause=f"got {record!r:.80}",
        hint='make one with map(): .map(lambda x: {"x": x})',
    )


def _fitting(record: Sequence[Any], fields: tuple[str, ...]) -> Sequence[Any]:
    if len(record) != len(fields):
        raise PipelineError(f"A row has {len(record)} values for {len(fields)} fields", cause=f"got {record!r:.80}")
    return record


def _unfit(extra: list[str], fields: tuple[str, ...]) -> PipelineError:
    return PipelineError(
        f"A row has fields that the file has not: {', '.join(map(str, extra))}",
        cause=f"the file has {', '.join(fields)}",
        hint="name all fields with fields=[…]",
    )


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and torch."""
    for method in ("item", "tolist"):
        if hasattr(value, method) and (method == "tolist" or getattr(value, "ndim", 0) == 0):
            return getattr(value, method)()
    raise PipelineError(
        "A record cannot be written as JSON",
        cause=f"{value!r:.80} is no plain data, dataclass, date or number",
        hint="make it plain with map()",
    )


_json = msgspec.json.Encoder(enc_hook=_plain)

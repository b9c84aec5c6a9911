"""Parquet files, through pyarrow (extra `arrow`). Row groups are read apart from each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from sage.common.errors import PipelineError
from sage.core.connectors.base import BadRecord
from sage.core.connectors.files.encoders import FileEncoder, RecordFile, as_row
from sage.core.connectors.files.paths import file_errors
from sage.core.connectors.files.source import FileFormat
from sage.core.connectors.splits import Cursor

__all__ = ["ParquetEncoder", "ParquetRows", "arrow"]

_BATCH = 8192  # rows that are decoded at once


def arrow() -> Any:
    """The module pyarrow. Raises PipelineError when it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise PipelineError(
            "Parquet needs pyarrow", cause="it is not installed", hint="pip install 'sage-stack[arrow]'"
        ) from error
    return pyarrow


@dataclass(frozen=True)
class ParquetRows(FileFormat[Any]):
    """Rows as dicts, or Arrow record batches (`columnar`) of at most 8,192 rows; `columns`: only these are read."""

    columns: tuple[str, ...] | None = None
    columnar: bool = False

    def parts(self, path: str) -> list[str]:
        """See FileFormat: the numbers of the row groups."""
        with file_errors(path, "read"), _Opened(path) as file:
            return [str(number) for number in range(file.num_row_groups)]

    def open(self, path: str, part: str, position: Any, bad_record: BadRecord) -> Cursor[Any]:
        """See FileFormat; a position counts the rows of the group that were read."""
        return ParquetCursor(self, path, int(part), position or 0)


class ParquetCursor(Cursor[Any]):
    """Reads a row group."""

    position: int

    def __init__(self, rows: ParquetRows, path: str, group: int, position: int) -> None:
        self._path = path
        self._columnar = rows.columnar
        self.position = position
        self._opened = _Opened(path)
        with file_errors(path, "read"):
            file = self._opened.__enter__()
        missing = sorted(set(rows.columns or ()) - set(file.schema_arrow.names))
        if missing or group >= file.num_row_groups:
            self.close()
            raise PipelineError(
                f"{path} has no column {', '.join(missing)}" if missing else f"{path} has changed",
                cause=f"it has {', '.join(file.schema_arrow.names)}" if missing else f"row group {group} is gone",
            )
        self._batches: Iterator[Any] = file.iter_batches(_BATCH, row_groups=[group], columns=rows.columns)
        self._batch: Any = None
        self._offset = 0  # rows of the batch that were given or skipped
        self._skip = position

    def read(self, limit: int) -> list[Any] | None:
        """See Cursor."""
        while self._batch is None or self._offset >= self._batch.num_rows:
            with file_errors(self._path, "read"), _Damage(self._path):
                self._batch = next(self._batches, None)
            if self._batch is None:
                return None
            self._offset = min(self._skip, self._batch.num_rows)
            self._skip -= self._offset
        part = self._batch.slice(self._offset, None if self._columnar else limit)
        self._offset += part.num_rows
        self.position += part.num_rows
        return [part] if self._columnar else list(part.to_pylist())

    def close(self) -> None:
        """See Cursor."""
        self._opened.__exit__(None, None, None)


class _Opened:
    """A Parquet file, with errors that name it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Any:
        arrow()
        from pyarrow import parquet

        with _Damage(self._path):
            self._file = parquet.ParquetFile(self._path, memory_map=False)
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Damage:
    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        unread = isinstance(error, OSError) and error.errno is None  # pyarrow's word for data that does not fit
        if isinstance(error, arrow().ArrowException) or unread:
            raise PipelineError(
                f"{self._path} is damaged, or no Parquet file", cause=str(error), hint="write it again"
            ) from error


@dataclass(frozen=True)
class ParquetEncoder(FileEncoder):
    """Mappings, dataclasses and named tuples as rows, Arrow record batches as they are.

    The schema is that of the file's first batch of records unless it is given (a `pyarrow.Schema`).
    """

    schema: Any = None
    group_rows: int = 64 * 1024
    suffix = ".parquet"

    def begin(self, file: IO[bytes], head: bytes = b"") -> RecordFile:
        """See FileEncoder."""
        return _ParquetFile(self, file)


class _ParquetFile(RecordFile):
    def __init__(self, encoder: ParquetEncoder, file: IO[bytes]) -> None:
        self._arrow = arrow()
        self._file = file
        self._schema = encoder.schema
        self._group_rows = encoder.group_rows
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0
        self._waiting_size = 0

    def write(self, records: list[Any]) -> None:
        """See RecordFile. Raises PipelineError for rows that do not fit the schema."""
        tables = [self._arrow.Table.from_batches([r]) for r in records if isinstance(r, self._arrow.RecordBatch)]
        rows = [r for r in records if not isinstance(r, self._arrow.RecordBatch)]
        if rows:
            tables.append(self._table(rows))
        for table in tables:
            if self._schema is None:
                self._schema = table.schema
            elif table.schema != self._schema:
                raise PipelineError(
                    "Record batches of one file need one schema", cause=f"{table.schema} beside {self._schema}"
                )
        self._waiting += tables
        self._rows += sum(table.num_rows for table in tables)
        self._waiting_size += sum(table.nbytes for table in tables)
        if self._rows >= self._group_rows:
            self._write_group()

    @property
    def size(self) -> int:
        return self._file.tell() + self._waiting_size

    def finish(self) -> None:
        """See RecordFile: the last row group, and the footer."""
        self._write_group()
        if self._writer is not None:
            self._writer.close()

    def _table(self, records: list[Any]) -> Any:
        rows = [as_row(record) for record in records]
        try:
            if self._schema is not None:
                names = set(self._schema.names)
                extra = next((sorted(row.keys() - names) for row in rows if row is not None and row.keys() - names), [])
                if extra:
                    raise ValueError(f"the file has no column {', '.join(map(str, extra))}")
            if None in rows:
                raise ValueError("tuples and lists have no names for their columns")
            return self._arrow.Table.from_pylist(rows, schema=self._schema)
        except (self._arrow.ArrowException, ValueError, TypeError) as error:
            raise PipelineError(
                "Rows do not fit a Parquet file",
                cause=str(error),
                hint="make them alike with map(), or name the types: schema=pyarrow.schema([…])",
            ) from error

    def _write_group(self) -> None:
        if not self._waiting:
            return
        from pyarrow import parquet

        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._file, self._schema)
        self._writer.write_table(self._arrow.concat_tables(self._waiting))
        self._waiting, self._rows, self._waiting_size = [], 0, 0

"""The formats of files by their short names."""

from __future__ import annotations

from typing import Any

from sage.common.errors import PipelineError
from sage.core.connectors.files.delimited import CsvRows
from sage.core.connectors.files.lines import JsonLines, TextLines
from sage.core.connectors.files.parquet import ParquetRows, arrow
from sage.core.connectors.files.source import FileFormat

__all__ = ["file_format"]

_FORMATS: dict[str, type[FileFormat[Any]]] = {
    "text": TextLines,
    "jsonl": JsonLines,
    "csv": CsvRows,
    "parquet": ParquetRows,
}


def file_format(given: str | FileFormat[Any]) -> FileFormat[Any]:
    """A format, or the one of that name with its defaults. Raises PipelineError."""
    if isinstance(given, FileFormat):
        return given
    if given not in _FORMATS:
        raise PipelineError(f"{given!r} is no format of files", hint=f"one of {', '.join(_FORMATS)}")
    if given == "parquet":
        arrow()
    return _FORMATS[given]()

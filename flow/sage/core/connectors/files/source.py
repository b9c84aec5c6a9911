"""Files as a source. What their bytes mean is said by a `FileFormat`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sage.core.connectors.base import BadRecord, ReaderContext, Source, SourceReader, Split
from sage.core.connectors.files.paths import find_files
from sage.core.connectors.splits import Cursor, CursorReader

__all__ = ["FileFormat", "FileSource", "path_of"]

T = TypeVar("T")
_PART = "@"


def path_of(split_id: str) -> str:
    """The file of a split."""
    return split_id.rpartition(_PART)[0]


class FileFormat(ABC, Generic[T]):
    """How files are read; picklable plain data."""

    def parts(self, path: str) -> list[str]:
        """Names of the parts that can be read apart from each other, in order; by default the whole file is one."""
        return [""]

    @abstractmethod
    def open(self, path: str, part: str, position: Any, bad_record: BadRecord) -> Cursor[T]:
        """A cursor over a part of the file, from its beginning where `position` is None."""


@dataclass(frozen=True)
class FileSource(Source[T]):
    """Reads files, folders and patterns; see `find_files` for what they name and in which order."""

    paths: tuple[str, ...]
    format: FileFormat[T]

    def splits(self) -> list[Split]:
        """The parts of the files that are there now. Raises PipelineError when there are none."""
        return self.parts_of(find_files(self.paths))

    def resume(self, stored: Sequence[Split]) -> list[Split]:
        """Files that were known keep the parts that they had; new ones come behind them."""
        known = {path_of(split.id) for split in stored}
        if all(Path(path).is_file() and path in known for path in self.paths):
            return list(stored)
        return [*stored, *self.parts_of([path for path in find_files(self.paths) if path not in known])]

    def parts_of(self, files: Sequence[str]) -> list[Split]:
        """The splits of these files."""
        return [Split(f"{path}{_PART}{part}") for path in files for part in self.format.parts(path)]

    def reader(self, context: ReaderContext) -> SourceReader[T]:
        """See Source."""
        return CursorReader(self.opener(context))

    def opener(self, context: ReaderContext) -> _Opener[T]:
        """What opens the splits of one subtask."""
        return _Opener(self.format, context.bad_record)


class _Opener(Generic[T]):
    def __init__(self, file_format: FileFormat[T], bad_record: BadRecord) -> None:
        self._format = file_format
        self._bad_record = bad_record

    def __call__(self, split: Split) -> Cursor[T]:
        path, _, part = split.id.rpartition(_PART)
        return self._format.open(path, part, split.position, self._bad_record)

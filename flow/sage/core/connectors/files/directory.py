"""A folder that files arrive in (after Flink's FileSource with `monitorContinuously`).

Files must arrive whole: written elsewhere, or under a hidden name, and renamed. Each is read once, those found together
in the order of their times and names. What was read is remembered for as long as the file is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sage.common.errors import PipelineError
from sage.core.connectors.base import ReaderContext, SourceReader, Split
from sage.core.connectors.files.paths import file_errors
from sage.core.connectors.files.source import FileSource, path_of
from sage.core.connectors.splits import CursorReader
from sage.core.runtime.operators.source import splits_of

__all__ = ["DirectorySource"]

T = TypeVar("T")


@dataclass(frozen=True)
class DirectorySource(FileSource[T]):
    """`paths` is the folder; `pattern` as of `Path.glob`; `interval`: seconds between two looks."""

    pattern: str = "*"
    interval: float = 1.0
    bounded = False

    def splits(self) -> list[Split]:
        """None yet: readers look themselves. Raises PipelineError when the folder is none."""
        folder = Path(self.paths[0])
        with file_errors(folder, "read"):
            folder.stat()
        if not folder.is_dir():
            raise PipelineError(f"{folder} is no folder", hint="from_text and its like read single files")
        return []

    def resume(self, stored: Sequence[Split]) -> list[Split]:
        """See Source."""
        return [*self.splits(), *stored]

    def reader(self, context: ReaderContext) -> SourceReader[T]:
        """See Source."""
        return DirectoryReader(self, context)

    def arrived(self) -> list[str]:
        """The files that are there, the oldest first."""
        folder = Path(self.paths[0])
        with file_errors(folder, "read"):
            files = [(path.stat().st_mtime_ns, str(path)) for path in folder.glob(self.pattern) if _is_whole(path)]
        return [path for _, path in sorted(files)]


class DirectoryReader(CursorReader[T]):
    """Looks for files whenever it has read all that it knows; takes those that fall to its subtask."""

    def __init__(self, source: DirectorySource[T], context: ReaderContext) -> None:
        super().__init__(source.opener(context))
        self._source = source
        self._context = context
        self._next_look: float | None = None

    def no_splits(self, timeout: float) -> list[T] | None:
        """See CursorReader: never the end."""
        now = self._context.clock.monotonic()
        if self._next_look is not None and now < self._next_look:
            self.pause(min(timeout, self._next_look - now))
            return []
        self._next_look = now + self._source.interval
        there = self._source.arrived()
        self._finished = [split_id for split_id in self._finished if path_of(split_id) in set(there)]
        known = {path_of(split_id) for split_id in self._finished}
        new = self._source.parts_of([path for path in there if path not in known])
        self.add_splits(splits_of(self._context.subtask, self._context.parallelism, new))
        return []


def _is_whole(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()

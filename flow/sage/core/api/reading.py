"""The connectors that an environment reads from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.connectors.base import Source
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.core.connectors.files.paths import PathLike

__all__ = ["ReadingMixin"]

R = TypeVar("R")


class ReadingMixin(ABC):
    """`from_…` for everything outside of the program.

    Positions of these sources are in checkpoints: a restored job goes on at the record after the last one. Where that
    is not possible the method says so. Errors are raised when the job runs.
    """

    @abstractmethod
    def _source(self, spec: SourceSpec, name: str, parallelism: int, origin: Origin) -> DataStream[Any]: ...

    def _connector(self, source: Source[R], name: str, parallelism: int = 1) -> DataStream[R]:
        spec = SourceSpec(SourceKind.CONNECTOR, source.bounded, source)
        return self._source(spec, name, parallelism, Origin.of_caller())

    def from_range(
        self, start: int, stop: int | None = None, step: int = 1, *, name: str | None = None, parallelism: int = 1
    ) -> DataStream[int]:
        """The numbers of `range(start, stop, step)`; with one argument from 0 to before it.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_range(3).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [0, 1, 2]
        """
        from sage.core.connectors.sequences import RangeSource

        values = range(start) if stop is None else range(start, stop, step)
        return self._connector(RangeSource(len(values), values=values), name or "from_range", parallelism)

    def from_generator(
        self,
        function: Callable[[int], R],
        count: int | None = None,
        *,
        rate: float | None = None,
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[R]:
        """`function(n)` for n = 0, 1, 2, …: `count` records, or without end; at most `rate` a second, over all subtasks
        together.

        The same n must give the same record: a restored job asks again. Raises PipelineError for a rate or a count that
        is none.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_generator(lambda n: n * n, 4, rate=1000).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [0, 1, 4, 9]
        """
        from sage.core.connectors.sequences import GeneratorSource

        if not callable(function):
            raise PipelineError(
                f"from_generator needs a function of a number ({Origin.of_caller()})", cause=f"got {function!r:.80}"
            )
        if (rate is not None and not rate > 0) or (count is not None and count < 0):
            raise PipelineError(
                f"from_generator needs a positive rate and count ({Origin.of_caller()})",
                cause=f"got rate={rate}, count={count}",
            )
        return self._connector(GeneratorSource(count, rate, function), name or "from_generator", parallelism)

    def from_text(
        self,
        path: PathLike | Sequence[PathLike],
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[str]:
        """The lines of a file, without their ends; of several files, all in a folder, or those of a pattern (`*.log`).

        In the order of the names; large files are shared out where parallelism is above 1; names that end with .gz are
        unpacked. A line that is not in the encoding fails the job, unless `on_error` leaves it out or
        `errors="replace"` changes it.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name, "lines.txt")
        >>> _ = file.write_text("one\\ntwo\\n")
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_text(file).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        ['one', 'two']
        """
        from sage.core.connectors.files.lines import TextLines, checked_encoding
        from sage.core.connectors.files.paths import checked_paths
        from sage.core.connectors.files.source import FileSource

        lines = TextLines(encoding=checked_encoding(encoding), errors=errors)
        return self._connector(FileSource(checked_paths(path), lines), name or "from_text", parallelism)

    def from_jsonl(
        self, path: PathLike | Sequence[PathLike], *, name: str | None = None, parallelism: int = 1
    ) -> DataStream[Any]:
        """The values of files that have a JSON value in each line; paths as for `from_text`.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name, "orders.jsonl")
        >>> _ = file.write_text('{"id": 1}\\n{"id": 2}\\n')
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_jsonl(file).map(lambda order: order["id"]).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [1, 2]
        """
        from sage.core.connectors.files.lines import JsonLines
        from sage.core.connectors.files.paths import checked_paths
        from sage.core.connectors.files.source import FileSource

        return self._connector(FileSource(checked_paths(path), JsonLines()), name or "from_jsonl", parallelism)

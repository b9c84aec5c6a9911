"""The connectors that an environment reads from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.units import parse_duration
from sage.core.connectors.base import Source
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceKind, SourceSpec

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.core.connectors.files.paths import PathLike
    from sage.core.connectors.files.source import FileFormat
    from sage.core.connectors.redis_streams import RedisEntry

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

        try:
            values = range(start) if stop is None else range(start, stop, step)
        except (TypeError, ValueError) as error:
            raise PipelineError(
                f"from_range needs whole numbers, and a step other than 0 ({Origin.of_caller()})", cause=str(error)
            ) from error
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

    def from_csv(
        self,
        path: PathLike | Sequence[PathLike],
        *,
        fields: Sequence[str] | None = None,
        types: Mapping[str, Callable[[str], Any]] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[dict[str, Any]]:
        """The rows of CSV files as dicts of text; paths as for `from_text`, a file is read by one subtask.

        `fields` names the columns of files without a header; `types` converts columns: `{"price": float}`. A row with
        another number of values, or one that cannot be converted, fails the job unless `on_error` leaves it out.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name, "prices.csv")
        >>> _ = file.write_text("what,price\\ntea,2.5\\n")
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_csv(file, types={"price": float}).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [{'what': 'tea', 'price': 2.5}]
        """
        from sage.core.connectors.files.delimited import CsvRows
        from sage.core.connectors.files.lines import checked_encoding
        from sage.core.connectors.files.paths import checked_paths
        from sage.core.connectors.files.source import FileSource

        columns = tuple(fields) if fields is not None else None
        rows = CsvRows(columns, delimiter, checked_encoding(encoding), dict(types or {}))
        return self._connector(FileSource(checked_paths(path), rows), name or "from_csv", parallelism)

    def from_parquet(
        self,
        path: PathLike | Sequence[PathLike],
        *,
        columns: Sequence[str] | None = None,
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[dict[str, Any]]:
        """The rows of Parquet files as dicts, only these `columns` of them; paths as for `from_text`. Subtasks share
        the row groups. Needs the extra `arrow`.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = pathlib.Path(folder.name, "numbers")
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_range(3).map(lambda n: {"n": n}).write_parquet(out)
        >>> _ = env.submit()
        >>> _ = env.from_parquet(out).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [{'n': 0}, {'n': 1}, {'n': 2}]
        """
        from sage.core.connectors.files.parquet import ParquetRows, arrow
        from sage.core.connectors.files.paths import checked_paths
        from sage.core.connectors.files.source import FileSource

        arrow()
        rows = ParquetRows(tuple(columns) if columns is not None else None)
        return self._connector(FileSource(checked_paths(path), rows), name or "from_parquet", parallelism)

    def from_directory(
        self,
        path: PathLike,
        pattern: str = "*",
        *,
        format: str | FileFormat[Any] = "text",  # noqa: A002 - the word for it
        interval: str | float = "1s",
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[Any]:
        """The records of every file that is in a folder or arrives there, for ever; each file once, when it is whole:
        write it under a hidden name, then rename it.

        `pattern` as of `Path.glob` (`**/*.csv`); `format`: text, jsonl, csv, parquet, or one with options, as
        `CsvRows(delimiter=";")`; `interval`: between two looks. Raises PipelineError for an unknown format.
        """
        from sage.core.connectors.files.directory import DirectorySource
        from sage.core.connectors.files.formats import file_format
        from sage.core.connectors.files.paths import checked_paths

        source: DirectorySource[Any] = DirectorySource(
            checked_paths(path), file_format(format), pattern, parse_duration(interval)
        )
        return self._connector(source, name or "from_directory", parallelism)

    def from_socket(
        self, host: str, port: int, *, encoding: str = "utf-8", reconnect: bool = False, name: str | None = None
    ) -> DataStream[str]:
        """The lines that a TCP server sends, until it closes the connection; with `reconnect` the connection is then
        made again. A broken one is always made again, ten times in a row at most, at growing distances.

        A socket has no position: what came after the last checkpoint is lost when the job fails.
        """
        from sage.core.connectors.files.lines import checked_encoding
        from sage.core.connectors.sockets import SocketSource

        source = SocketSource(host, port, checked_encoding(encoding), reconnect)
        return self._connector(source, name or "from_socket")

    def from_webhook(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        path: str = "/",
        token: str | None = None,
        acknowledge: str = "received",
        name: str | None = None,
    ) -> DataStream[Any]:
        """The bodies of POST requests to `http://host:port/path`: values of JSON, or text for `text/…`.

        `token`: senders must give it as `Authorization: Bearer`. `acknowledge="checkpoint"`: a request is answered when
        a checkpoint holds what its record has done, so that nothing is lost that was answered; one that is sent again
        with the same `Idempotency-Key` is one record. With "received" it is answered at once, and lost if the job then
        fails before its next checkpoint. Raises PipelineError for another word.
        """
        from sage.core.connectors.webhook import WebhookSource

        if acknowledge not in ("received", "checkpoint"):
            raise PipelineError(
                f"from_webhook acknowledges when a record is received, or with its checkpoint ({Origin.of_caller()})",
                cause=f"got {acknowledge!r}",
                hint='acknowledge="received" or "checkpoint"',
            )
        source = WebhookSource(port, host, path, token, acknowledge)
        return self._connector(source, name or "from_webhook")

    def from_sse(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: bool = False,
        reconnect: bool = True,
        name: str | None = None,
    ) -> DataStream[Any]:
        """Server-sent events as dicts with `event`, `data` and `id`; with `json` the values in their data alone.

        The id of the last event is the position: the server is asked to go on behind it. With `reconnect` a stream that
        ends is opened again, until the server answers 204.
        """
        from sage.core.connectors.sse import SseSource

        return self._connector(SseSource(url, dict(headers or {}), json, reconnect), name or "from_sse")

    def from_sql(
        self, database: PathLike, query: str, *, key: str, every: str | float | None = None, name: str | None = None
    ) -> DataStream[dict[str, Any]]:
        """The rows of a SELECT, or of the table of that name, as dicts, in the order of the column `key`.

        `database` is a file of SQLite (`key="rowid"` works for its tables), or a URL of SQLAlchemy (extra `sql`). `key`
        must be unique and never NULL; its last value is the position. With `every` the stream goes on with rows of a
        greater key, looking that often; a row that another transaction commits later with a smaller one is not seen.

        >>> import pathlib, sqlite3, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name, "shop.db")
        >>> with sqlite3.connect(file) as shop:
        ...     _ = shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        ...     _ = shop.execute("INSERT INTO orders (what) VALUES ('tea'), ('salt')")
        >>> shop.close()
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_sql(file, "orders", key="id").sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [{'id': 1, 'what': 'tea'}, {'id': 2, 'what': 'salt'}]
        """
        from sage.core.connectors.files.paths import checked_database
        from sage.core.connectors.sql.source import SqlSource

        source = SqlSource(checked_database(database), query, key, parse_duration(every) if every is not None else None)
        return self._connector(source, name or "from_sql")

    def from_redis(
        self,
        url: str,
        *streams: str,
        start: str = "0",
        group: str | None = None,
        name: str | None = None,
        parallelism: int = 1,
    ) -> DataStream[RedisEntry]:
        """The entries of Redis streams, as tuples `(stream, id, fields)`, for ever; subtasks share the streams.

        `start` counts for a job that begins anew: "0" for every entry, "$" for those to come, or an id to go on behind.
        Positions are the job's own; `group` names a consumer group that shows others how far checkpoints have come.
        Needs the extra `redis`. Raises PipelineError without streams.
        """
        from sage.core.connectors.redis_streams import RedisStreamSource

        if not streams:
            raise PipelineError(f"from_redis needs the name of a stream ({Origin.of_caller()})")
        return self._connector(RedisStreamSource(url, streams, start, group), name or "from_redis", parallelism)

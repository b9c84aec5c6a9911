"""The connectors that a stream ends in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.outputs import OutputsMixin
from sage.core.api.stream import DataStreamSink
from sage.core.graph.origin import Origin

if TYPE_CHECKING:
    from sage.core.connectors.base import Sink
    from sage.core.connectors.files.encoders import FileEncoder
    from sage.core.connectors.files.paths import PathLike

__all__ = ["WritingMixin"]

T = TypeVar("T")


class WritingMixin(OutputsMixin[T]):
    """`write_…` for files and databases.

    Files: with `exactly_once=True` `path` becomes a folder of part files. They only appear whole, when the checkpoint
    that holds their records is complete (without checkpoints: when the job ends), so that after a crash and a restore
    nothing is in them twice and nothing is missing. Without it one subtask writes one file, whose end is visible before
    it is safe; a restore cuts it back to its checkpoint. A job that begins anew begins with no output in either.
    """

    def write_text(
        self,
        path: PathLike,
        exactly_once: bool = False,
        *,
        encoding: str = "utf-8",
        append: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in text, a line for each record (its `str`); see WritingMixin. `append`: part files of earlier
        runs stay.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = pathlib.Path(folder.name, "out")
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_range(3).write_text(out, exactly_once=True)
        >>> _ = env.submit()
        >>> [part.read_text() for part in out.iterdir()]
        ['0\\n1\\n2\\n']
        """
        from sage.core.connectors.files.encoders import TextEncoder
        from sage.core.connectors.files.lines import checked_encoding

        encoder = TextEncoder(checked_encoding(encoding))
        return self._write(path, encoder, exactly_once, append, name or "write_text", parallelism, uid)

    def write_jsonl(
        self,
        path: PathLike,
        exactly_once: bool = False,
        *,
        append: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in JSON, a line for each record: plain data, dataclasses, dates; see WritingMixin.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = pathlib.Path(folder.name, "out.jsonl")
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_range(2).map(lambda n: {"n": n}).write_jsonl(out)
        >>> _ = env.submit()
        >>> out.read_text()
        '{"n":0}\\n{"n":1}\\n'
        """
        from sage.core.connectors.files.encoders import JsonEncoder

        return self._write(path, JsonEncoder(), exactly_once, append, name or "write_jsonl", parallelism, uid)

    def write_csv(
        self,
        path: PathLike,
        exactly_once: bool = False,
        *,
        fields: list[str] | tuple[str, ...] | None = None,
        delimiter: str = ",",
        append: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in CSV: mappings, dataclasses and named tuples with a header, tuples and lists without one
        unless `fields` names it. Fields are those of a file's first record unless given; see WritingMixin.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = pathlib.Path(folder.name, "out.csv")
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_range(2).map(lambda n: {"n": n, "word": "a, b"}).write_csv(out)
        >>> _ = env.submit()
        >>> print(out.read_text(), end="")
        n,word
        0,"a, b"
        1,"a, b"
        """
        from sage.core.connectors.files.encoders import CsvEncoder

        encoder = CsvEncoder(tuple(fields) if fields is not None else None, delimiter)
        return self._write(path, encoder, exactly_once, append, name or "write_csv", parallelism, uid)

    def write_parquet(
        self,
        path: PathLike,
        *,
        schema: Any = None,
        append: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in a folder of Parquet files, which is always exactly-once (a file cannot grow); records are
        mappings, dataclasses, named tuples or Arrow record batches. `schema`: a `pyarrow.Schema`, else that of a file's
        first records. Needs the extra `arrow`; see WritingMixin.

        >>> import pathlib, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_range(3).map(lambda n: {"n": n}).write_parquet(pathlib.Path(folder.name, "out"))
        >>> _ = env.submit()
        >>> [part.suffix for part in pathlib.Path(folder.name, "out").iterdir()]
        ['.parquet']
        """
        from sage.core.connectors.files.parquet import ParquetEncoder, arrow

        arrow()
        return self._write(path, ParquetEncoder(schema), True, append, name or "write_parquet", parallelism, uid)

    def write_sql(
        self,
        database: PathLike,
        table: str,
        *,
        key: str | Sequence[str] = (),
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in a table, which must be there; records are mappings, dataclasses, or tuples with a value for
        each column. `database` is a file of SQLite, or a URL of SQLAlchemy (extra `sql`).

        Each row is inserted exactly once, with the checkpoint that holds it (without checkpoints: when the job ends),
        by way of a table `sage_staging_<table>`. With `key`, columns with a unique index, a row replaces the one of the
        same key at once; a replay writes the same rows again.

        >>> import pathlib, sqlite3, tempfile
        >>> from sage.core.api import LocalEnvironment
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name, "shop.db")
        >>> shop = sqlite3.connect(file)
        >>> _ = shop.execute("CREATE TABLE squares (n INTEGER, square INTEGER)")
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_range(3).map(lambda n: {"n": n, "square": n * n}).write_sql(file, "squares")
        >>> _ = env.submit()
        >>> shop.execute("SELECT * FROM squares").fetchall()
        [(0, 0), (1, 1), (2, 4)]
        >>> shop.close()
        """
        from sage.core.connectors.files.paths import checked_database
        from sage.core.connectors.sql.sink import SqlSink

        sink = SqlSink(checked_database(database), table, (key,) if isinstance(key, str) else tuple(key))
        return self.sink_to(sink, name=name or "write_sql", parallelism=parallelism, uid=uid)

    def write_redis(
        self,
        url: str,
        stream: str,
        *,
        max_length: int | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStreamSink:
        """End the stream in a Redis stream: mappings as entries, added exactly once, with the checkpoint that holds
        them. `max_length`: about how many entries the stream keeps. Needs the extra `redis`.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> entries = env.from_range(3).map(lambda n: {"n": n})
        >>> entries.write_redis("redis://localhost", "numbers").name
        'write_redis'
        """
        from sage.core.connectors.redis_streams import RedisStreamSink

        sink: Sink[Any] = RedisStreamSink(url, stream, max_length)
        return self.sink_to(sink, name=name or "write_redis", parallelism=parallelism, uid=uid)

    def _write(
        self,
        path: PathLike,
        encoder: FileEncoder,
        exactly_once: bool,
        append: bool,
        name: str,
        parallelism: int | None,
        uid: str | None,
    ) -> DataStreamSink:
        from sage.core.connectors.files.parts import PartsSink
        from sage.core.connectors.files.paths import checked_paths
        from sage.core.connectors.files.single import SingleFileSink

        (place,) = checked_paths(path)
        sink: Sink[Any]
        if exactly_once:
            _refuse_file(place)
            sink = PartsSink(place, encoder, append=append)
            return self.sink_to(sink, name=name, parallelism=parallelism, uid=uid)
        if append or parallelism not in (None, 1):
            raise PipelineError(
                f"{name} writes one file here, with one subtask, from its beginning ({Origin.of_caller()})",
                cause=f"got append={append}, parallelism={parallelism}",
                hint="exactly_once=True writes a folder of part files, which can have both",
            )
        return self.sink_to(SingleFileSink(place, encoder), name=name, parallelism=1, uid=uid)


def _refuse_file(path: str) -> None:
    if (Path(path).exists() or Path(path).is_symlink()) and not Path(path).is_dir():
        raise PipelineError(
            f"{path} is no folder ({Origin.of_caller()})",
            cause="exactly-once output is a folder of part files",
            hint="name another place, or remove what is there",
        )

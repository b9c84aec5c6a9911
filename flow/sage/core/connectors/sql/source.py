"""The rows of a query as a source. They are read in pages, in the order of a column whose values are unique: the last
value is the position."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

from sage.common.errors import PipelineError
from sage.core.connectors.backoff import Backoff, Retry
from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split
from sage.core.connectors.splits import Cursor, CursorReader
from sage.core.connectors.sql.database import Database, Lost, open_database
from sage.core.runtime.clock import Clock

__all__ = ["SqlSource"]

_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class SqlSource(Source[dict[str, Any]]):
    """`query` is a SELECT or the name of a table. `every` (seconds): go on looking for rows with a greater `key`."""

    database: str
    query: str
    key: str
    every: float | None = None
    page: int = 2000
    retry: Retry = field(default_factory=Retry)

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """See Source."""
        return self.every is None

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split("rows")]

    def reader(self, context: ReaderContext) -> SourceReader[dict[str, Any]]:
        """See Source."""
        return CursorReader(lambda split: SqlCursor(self, split.position, context.clock))


class SqlCursor(Cursor[dict[str, Any]]):
    """Reads pages; waits, without blocking, between looks and after a lost connection."""

    def __init__(self, source: SqlSource, position: Any, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self.position = position
        self._rows: list[dict[str, Any]] = []
        self._given = 0
        self._next_look = 0.0
        self._database: Database | None = None
        self._backoff = Backoff(source.retry, "the database")

    def read(self, limit: int) -> list[dict[str, Any]] | None:
        """See Cursor."""
        if self._given >= len(self._rows):
            if self._clock.monotonic() < self._next_look:
                return []
            if not self._look():
                return None if self._source.every is None and self._database is not None else []
        rows = self._rows[self._given : self._given + limit]
        self._given += len(rows)
        self.position = rows[-1][self._source.key]
        return rows

    def close(self) -> None:
        """See Cursor."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _look(self) -> bool:
        """Whether there are more rows; when there are none now, the next look comes later."""
        source = self._source
        try:
            if self._database is None:
                self._database = open_database(source.database, read_only=True)
                if self.position is None:
                    self._refuse_nulls(self._database)
            rows = self._database.page(self._select(self._database), source.key, self.position, source.page + 1)
        except Lost as error:
            self.close()
            self._next_look = self._clock.monotonic() + self._backoff.failed(error)
            return False
        self._backoff.succeeded()
        self._check(rows)
        self._rows, self._given = rows[: source.page], 0
        if not rows and source.every is not None:
            self._next_look = self._clock.monotonic() + source.every
        return bool(rows)

    def _select(self, database: Database) -> str:
        query = self._source.query.strip().rstrip(";")
        if _NAME.fullmatch(query) is None:
            return query
        rowid = "rowid AS rowid, " if self._source.key == "rowid" and database.dialect == "sqlite" else ""
        return f"SELECT {rowid}{'t.' if rowid else ''}* FROM {database.quoted(query)} AS t"  # noqa: S608

    def _refuse_nulls(self, database: Database) -> None:
        name = database.quoted(self._source.key)
        statement = f"SELECT count(*) AS n FROM ({self._select(database)}) AS records WHERE {name} IS NULL"  # noqa: S608
        without = database.select(statement, {})[0]["n"]
        if without:
            raise self._unusable(f"{without:,} rows have none")

    def _check(self, rows: list[dict[str, Any]]) -> None:
        key = self._source.key
        if rows and key not in rows[0]:
            raise self._unusable(f"the rows have {', '.join(rows[0])}")
        for row, following in itertools.pairwise(rows):
            if row[key] == following[key]:
                raise self._unusable(f"{row[key]!r} is there twice")

    def _unusable(self, cause: str) -> PipelineError:
        return PipelineError(
            f"The column {self._source.key!r} cannot be the key of the source",
            cause=cause,
            hint="name a column whose values are unique, grow, and are never NULL: key=…",
        )

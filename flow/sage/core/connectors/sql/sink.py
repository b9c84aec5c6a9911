"""Rows into a table of a database, each exactly once.

Without a key in two phases: rows go into a staging table, marked with their transaction; when the checkpoint that names
the transaction is complete, one transaction of the database moves them into the table. What was moved is not in the
staging table any more, so moving again does nothing.

With a key the rows are written at once, a new one in place of the old one of the same key. A replay writes the same
again, so that the table is right once the replay has caught up; meanwhile it may show older values.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sage.common.errors import PipelineError, UpstreamError
from sage.core.connectors.base import Sink, SinkContext, SinkWriter
from sage.core.connectors.files.encoders import as_row
from sage.core.connectors.sql.database import Database, Lost, open_database
from sage.core.runtime.events import Batch

__all__ = ["SqlSink"]

_BATCH = 1000
_TRANSACTION, _ORDER = "sage_transaction", "sage_order"


@dataclass(frozen=True)
class SqlSink(Sink[Any]):
    """`key`: the columns (with a unique index) by which rows are replaced; () for two phases."""

    database: str
    table: str
    key: tuple[str, ...] = ()

    @property
    def exactly_once(self) -> bool:  # type: ignore[override]
        """See Sink."""
        return not self.key

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        """See Sink. Raises PipelineError when the table or the key's columns are not there."""
        return _Replacing(self, context) if self.key else _TwoPhase(self, context)


class _Writer(SinkWriter[Any]):
    def __init__(self, sink: SqlSink, context: SinkContext) -> None:
        self._sink = sink
        with _Told(sink):
            self._database: Database = open_database(sink.database)
            self._columns = self._database.columns(sink.table)
        missing = [name for name in sink.key if name not in self._columns]
        if missing:
            raise PipelineError(
                f"Table {sink.table!r} has no column {', '.join(missing)}", cause=f"it has {', '.join(self._columns)}"
            )
        self._rows: list[dict[str, Any]] = []

    def write(self, batch: Batch) -> None:
        """See SinkWriter."""
        self._rows += [self._row(record) for record in batch.records]
        if len(self._rows) >= _BATCH:
            self._put()

    def close(self) -> None:
        """See SinkWriter."""
        self._database.close()

    def _put(self) -> None:
        """Write what waits; it is given up only when that worked."""
        if self._rows:
            with _Told(self._sink):
                self._insert(self._rows)
            self._rows = []

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        raise NotImplementedError

    def _row(self, record: Any) -> dict[str, Any]:
        row = as_row(record)
        if row is None:
            if len(record) != len(self._columns):
                raise PipelineError(
                    f"A row has {len(record)} values for the {len(self._columns)} columns of {self._sink.table!r}",
                    cause=f"got {record!r:.80}",
                )
            return dict(zip(self._columns, record, strict=True))
        unknown = [name for name in row if name not in self._columns]
        if unknown:
            raise PipelineError(
                f"Table {self._sink.table!r} has no column {', '.join(map(str, unknown))}",
                cause=f"it has {', '.join(self._columns)}",
            )
        return dict(row)

    def _names(self, columns: Sequence[str]) -> str:
        return ", ".join(map(self._database.quoted, columns))


class _TwoPhase(_Writer):
    """A committable is [transaction, the columns that its rows have]."""

    def __init__(self, sink: SqlSink, context: SinkContext) -> None:
        super().__init__(sink, context)
        self._id = hashlib.sha256(f"{context.job}\n{context.operator_id}".encode()).hexdigest()[:12]
        self._subtask, self._parallelism = context.subtask, context.parallelism
        self._staging = f"sage_staging_{sink.table}"
        with _Told(sink):
            self._database.create_like(self._staging, sink.table, (_TRANSACTION, _ORDER))
        self._begin()

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """See SinkWriter."""
        self._put()
        if not self._order:
            return []
        prepared = [self._transaction, self._used]
        self._begin()
        return [prepared]

    def commit(self, committables: Sequence[Any]) -> None:
        """See SinkWriter: each transaction by itself."""
        staging, mark = self._database.quoted(self._staging), self._database.quoted(_TRANSACTION)
        target, order = self._database.quoted(self._sink.table), self._database.quoted(_ORDER)
        for transaction, columns in committables:
            names = self._names(columns)
            chosen = f"FROM {staging} WHERE {mark} = :it"
            with _Told(self._sink):
                self._database.run(
                    (f"INSERT INTO {target} ({names}) SELECT {names} {chosen} ORDER BY {order}", {"it": transaction}),
                    (f"DELETE {chosen}", {"it": transaction}),
                )

    def recover(self, committables: Sequence[Any]) -> None:
        """See SinkWriter; each subtask looks after the transactions of those numbers that fall to it."""
        promised = {transaction for transaction, _ in committables}
        staging, mark = self._database.quoted(self._staging), self._database.quoted(_TRANSACTION)
        with _Told(self._sink):
            found = self._database.select(
                f"SELECT DISTINCT {mark} AS it FROM {staging} WHERE {mark} LIKE :own",  # noqa: S608
                {"own": f"{self._id}-%"},
            )
            left = [
                row["it"]
                for row in found
                if row["it"] not in promised and int(row["it"].split("-")[1]) % self._parallelism == self._subtask
            ]
            if left:
                self._database.run((f"DELETE FROM {staging} WHERE {mark} = :it", [{"it": it} for it in left]))  # noqa: S608

    def _begin(self) -> None:
        self._transaction = f"{self._id}-{self._subtask}-{uuid.uuid4().hex}"
        self._order = 0
        self._used: list[str] = []

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        used = dict.fromkeys([*self._used, *(name for row in rows for name in row)])
        columns = [_TRANSACTION, _ORDER, *used]
        values = [
            {"p0": self._transaction, "p1": self._order + number}
            | {f"p{index}": row.get(name) for index, name in enumerate(used, 2)}
            for number, row in enumerate(rows, 1)
        ]
        marks = ", ".join(f":p{index}" for index in range(len(columns)))
        target = self._database.quoted(self._staging)
        self._database.run((f"INSERT INTO {target} ({self._names(columns)}) VALUES ({marks})", values))  # noqa: S608
        self._order += len(rows)
        self._used = list(used)


class _Replacing(_Writer):
    """By `INSERT … ON CONFLICT` where the database has it, of MySQL's kind or as DELETE and INSERT elsewhere."""

    def flush(self) -> None:
        """See SinkWriter."""
        self._put()

    def prepare(self, checkpoint_id: int) -> list[Any]:
        """See SinkWriter: nothing waits for a commit."""
        self._put()
        return []

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        newest = {tuple(row.get(name) for name in self._sink.key): row for row in rows}
        by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for key, row in newest.items():
            if None in key:
                raise PipelineError(
                    f"A row for {self._sink.table!r} has no key", cause=f"{self._sink.key} is {key} in {row!r:.80}"
                )
            by_columns.setdefault(tuple(row), []).append(row)
        steps = []
        for columns, alike in by_columns.items():
            values = [{f"p{index}": row[name] for index, name in enumerate(columns)} for row in alike]
            steps += [(statement, values) for statement in self._statements(columns)]
        self._database.run(*steps)

    def _statements(self, columns: tuple[str, ...]) -> list[str]:
        quoted, dialect = self._database.quoted, self._database.dialect
        target, marks = quoted(self._sink.table), ", ".join(f":p{index}" for index in range(len(columns)))
        insert = f"INSERT INTO {target} ({self._names(columns)}) VALUES ({marks})"  # noqa: S608
        others = [quoted(name) for name in columns if name not in self._sink.key]
        if dialect in ("sqlite", "postgresql", "cockroachdb", "duckdb"):
            update = ", ".join(f"{name} = excluded.{name}" for name in others)
            action = f"DO UPDATE SET {update}" if others else "DO NOTHING"
            return [f"{insert} ON CONFLICT ({self._names(self._sink.key)}) {action}"]
        if dialect in ("mysql", "mariadb"):
            keep = quoted(self._sink.key[0])
            update = ", ".join(f"{name} = VALUES({name})" for name in others) or f"{keep} = {keep}"
            return [f"{insert} ON DUPLICATE KEY UPDATE {update}"]
        same = " AND ".join(f"{quoted(name)} = :p{columns.index(name)}" for name in self._sink.key)
        return [f"DELETE FROM {target} WHERE {same}", insert]  # noqa: S608


class _Told:
    """Whether a statement was run before a connection broke nobody knows: so the job fails, and begins again from its
    checkpoint, where both ways come out the same."""

    def __init__(self, sink: SqlSink) -> None:
        self._table = sink.table

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Lost):
            raise UpstreamError(
                f"Cannot write to {self._table!r}", cause=str(error), hint="with a restart strategy the job tries again"
            ) from error

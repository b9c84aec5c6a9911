"""The schema of `.sage/state.db`, one numbered step after the other, and a look inside.

A step is never edited once released: a new one is added. `PRAGMA user_version` holds the number of the last step that
was applied. Steps run on plain sqlite3, because a fresh project makes its database on a start-up path; one that
reshapes a table (which SQLite cannot do in place) uses `sqlite_utils.Database(connection)[table].transform(…)`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from sage.common.home import SageHome

__all__ = ["LATEST", "MIGRATIONS", "Migration", "inspect", "migrate"]


class Migration(NamedTuple):
    number: int
    name: str
    apply: Callable[[sqlite3.Connection], None]


def _jobs(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            path TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('created', 'running', 'finished', 'failed', 'cancelled')),
            pid INTEGER NOT NULL,
            started_at REAL NOT NULL,
            ended_at REAL,
            error TEXT NOT NULL DEFAULT '',
            records_in INTEGER NOT NULL DEFAULT 0,
            records_out INTEGER NOT NULL DEFAULT 0,
            parallelism INTEGER NOT NULL DEFAULT 1
        ) STRICT"""
    )
    connection.execute("CREATE INDEX jobs_by_start ON jobs (started_at DESC)")


def _operators(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE operators (
            job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
            operator TEXT NOT NULL,
            kind TEXT NOT NULL,
            records_in INTEGER NOT NULL DEFAULT 0,
            records_out INTEGER NOT NULL DEFAULT 0,
            errors INTEGER NOT NULL DEFAULT 0,
            busy_s REAL NOT NULL DEFAULT 0,
            queue_depth INTEGER NOT NULL DEFAULT 0,
            updated_at REAL NOT NULL,
            PRIMARY KEY (job_id, operator)
        ) STRICT, WITHOUT ROWID"""
    )


def _operator_shares(connection: sqlite3.Connection) -> None:
    for column in (
        "position INTEGER NOT NULL DEFAULT 0",
        "parallelism INTEGER NOT NULL DEFAULT 1",
        "idle_s REAL NOT NULL DEFAULT 0",
        "blocked_s REAL NOT NULL DEFAULT 0",
        "watermark INTEGER",
        "state_bytes INTEGER NOT NULL DEFAULT 0",
        "latency_p50 REAL",
        "latency_p99 REAL",
    ):
        connection.execute(f"ALTER TABLE operators ADD COLUMN {column}")


def _checkpoints(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE checkpoints (
            job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
            checkpoint_id INTEGER NOT NULL,
            kind TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('in_progress', 'completed', 'failed')),
            triggered_at REAL NOT NULL,
            duration_s REAL NOT NULL DEFAULT 0,
            aligned_s REAL NOT NULL DEFAULT 0,
            sync_s REAL NOT NULL DEFAULT 0,
            async_s REAL NOT NULL DEFAULT 0,
            written INTEGER NOT NULL DEFAULT 0,
            size INTEGER NOT NULL DEFAULT 0,
            in_flight INTEGER NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (job_id, checkpoint_id)
        ) STRICT, WITHOUT ROWID"""
    )


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "jobs", _jobs),
    Migration(2, "operators", _operators),
    Migration(3, "operator shares", _operator_shares),
    Migration(4, "checkpoints", _checkpoints),
)
LATEST = MIGRATIONS[-1].number


def migrate(connection: sqlite3.Connection, upto: int = LATEST) -> list[int]:
    """Apply what is missing, in one transaction; returns the numbers that were applied.

    The connection must be in autocommit mode. Two processes may call this at once: the second finds nothing to do.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        at = version(connection)
        steps = [step for step in MIGRATIONS if at < step.number <= upto]
        for step in steps:
            step.apply(connection)
            connection.execute(f"PRAGMA user_version = {step.number:d}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return [step.number for step in steps]


def version(connection: sqlite3.Connection) -> int:
    """The number of the last migration that this database has seen."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def inspect(home: SageHome) -> dict[str, Any]:
    """What stands in state.db, for people: version, size, and each table's columns, rows and indexes.

    Reads only; {"exists": False, …} when there is no database. Uses sqlite-utils (imported here, it is slow).
    """
    path = home.state_db
    if not path.is_file():
        return {"path": str(path), "exists": False, "version": 0, "size_bytes": 0, "tables": {}}
    import sqlite_utils

    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        database = sqlite_utils.Database(connection)
        tables = {
            table.name: {
                "columns": {column.name: column.type for column in table.columns},
                "rows": table.count,
                "indexes": [index.name for index in table.indexes],
            }
            for table in database.tables
        }
        return {
            "path": str(path),
            "exists": True,
            "version": version(connection),
            "size_bytes": path.stat().st_size,
            "tables": tables,
        }
    finally:
        connection.close()

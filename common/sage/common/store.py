"""The state store: jobs and their operators' metrics in `.sage/state.db` (SQLite, WAL).

Many processes read and write it at once: a write is one `BEGIN IMMEDIATE` transaction, so it waits for its turn at the
start and cannot fail in the middle. Plain sqlite3 here; `sage.common.migrations` holds the schema.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from sage.common import migrations
from sage.common.atomic import set_aside
from sage.common.errors import StateError
from sage.common.home import SageHome

__all__ = ["CheckpointRow", "JobRow", "OperatorRow", "StateStore"]

BUSY_TIMEOUT_S = 10.0
_QUICK_CHECK_BELOW = 16 * 1024 * 1024  # bytes; a check of a bigger file would be felt at every start


@dataclass(slots=True)
class JobRow:
    """One run of a pipeline. Times: seconds since the epoch; state: created, running, finished, failed or cancelled."""

    id: str
    name: str
    path: str
    state: str
    pid: int
    started_at: float
    ended_at: float | None = None
    error: str = ""
    records_in: int = 0
    records_out: int = 0
    parallelism: int = 1


@dataclass(slots=True)
class OperatorRow:
    """The counters of one operator of a job, over all its subtasks.

    `busy_s` is the time spent inside the user's function, `idle_s` without input, `blocked_s` waiting for receivers
    (seconds, summed over `parallelism` subtasks). `watermark` is event time in ms; `latency_p50` and `latency_p99`
    (seconds) are known where the pipeline ends. `position` orders the operators of a job.
    """

    job_id: str
    operator: str
    kind: str
    records_in: int
    records_out: int
    errors: int
    busy_s: float
    queue_depth: int
    updated_at: float
    position: int = 0
    parallelism: int = 1
    idle_s: float = 0.0
    blocked_s: float = 0.0
    watermark: int | None = None
    state_bytes: int = 0
    latency_p50: float | None = None
    latency_p99: float | None = None


@dataclass(slots=True)
class CheckpointRow:
    """One checkpoint or savepoint of a job. `state`: in_progress, completed or failed; durations in seconds, `written`
    (what it added) and `size` (all that it refers to) in bytes."""

    job_id: str
    checkpoint_id: int
    kind: str
    state: str
    triggered_at: float
    duration_s: float = 0.0
    aligned_s: float = 0.0
    sync_s: float = 0.0
    async_s: float = 0.0
    written: int = 0
    size: int = 0
    in_flight: int = 0
    error: str = ""


_JOB = tuple(field.name for field in fields(JobRow))
_OPERATOR = tuple(field.name for field in fields(OperatorRow))
_CHECKPOINT = tuple(field.name for field in fields(CheckpointRow))


def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    marks = ", ".join("?" * len(columns))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) "  # noqa: S608 - names are constants of this file
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"
    )


_UPSERT_JOB = _upsert("jobs", _JOB, ("id",))
_UPSERT_OPERATOR = _upsert("operators", _OPERATOR, ("job_id", "operator"))
_UPSERT_CHECKPOINT = _upsert("checkpoints", _CHECKPOINT, ("job_id", "checkpoint_id"))
_SELECT_JOB = f"SELECT {', '.join(_JOB)} FROM jobs"  # noqa: S608
_SELECT_OPERATOR = f"SELECT {', '.join(_OPERATOR)} FROM operators"  # noqa: S608
_SELECT_CHECKPOINT = f"SELECT {', '.join(_CHECKPOINT)} FROM checkpoints"  # noqa: S608


class StateStore:
    """A connection to state.db, opened with the first use; safe to share between threads.

    `readonly=True` never makes or changes the file: while there is none, or nothing in it yet, every listing is empty.
    A damaged database is renamed to `state.db.corrupt-<time>` and a new one is made; `warnings` then says so.
    """

    def __init__(self, home: SageHome, *, readonly: bool = False) -> None:
        self.home = home
        self.readonly = readonly
        self.warnings: list[str] = []
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None  # kept, because closing it would harm the parent's locks
        self._pid = os.getpid()

    def __enter__(self) -> StateStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed at the end, rolled back on any exception. Raises StateError (disk full,
        locked by another process for longer than BUSY_TIMEOUT_S, damaged)."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the data. Raises StateError."""
        with self._transaction("BEGIN") as connection:
            yield connection

    def upsert_job(self, job: JobRow) -> None:
        """Insert the job, or replace what is known of it."""
        with self.write() as connection:
            connection.execute(_UPSERT_JOB, astuple(job))

    def jobs(self, limit: int = 50) -> list[JobRow]:
        """The latest jobs, the newest first."""
        rows = self._rows(f"{_SELECT_JOB} ORDER BY started_at DESC, id LIMIT ?", (limit,))
        return [JobRow(*row) for row in rows]

    def job(self, job_id: str) -> JobRow | None:
        rows = self._rows(f"{_SELECT_JOB} WHERE id = ?", (job_id,))
        return JobRow(*rows[0]) if rows else None

    def record_operator_metrics(self, job_id: str, operators: Iterable[OperatorRow]) -> None:
        """Replace the counters of these operators of a job that is in the store; all of them or none."""
        rows = list(operators)
        _refuse_others(job_id, rows)
        with self.write() as connection:
            connection.executemany(_UPSERT_OPERATOR, [astuple(row) for row in rows])

    def record(self, job: JobRow, operators: Iterable[OperatorRow], checkpoints: Iterable[CheckpointRow] = ()) -> None:
        """A job with the counters of its operators and its checkpoints, in one transaction."""
        operator_rows, checkpoint_rows = list(operators), list(checkpoints)
        _refuse_others(job.id, operator_rows)
        _refuse_others(job.id, checkpoint_rows)
        with self.write() as connection:
            connection.execute(_UPSERT_JOB, astuple(job))
            connection.executemany(_UPSERT_OPERATOR, [astuple(row) for row in operator_rows])
            connection.executemany(_UPSERT_CHECKPOINT, [astuple(row) for row in checkpoint_rows])

    def operators(self, job_id: str) -> list[OperatorRow]:
        """The counters of a job's operators, in the order in which records pass them."""
        rows = self._rows(f"{_SELECT_OPERATOR} WHERE job_id = ? ORDER BY position, operator", (job_id,))
        return [OperatorRow(*row) for row in rows]

    def checkpoints(self, job_id: str, limit: int = 20) -> list[CheckpointRow]:
        """The latest checkpoints of a job, the newest first."""
        order = "WHERE job_id = ? ORDER BY checkpoint_id DESC LIMIT ?"
        return [CheckpointRow(*row) for row in self._rows(f"{_SELECT_CHECKPOINT} {order}", (job_id, limit))]

    def _rows(self, sql: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        if self.readonly and self._connection is None and not self.home.state_db.exists():
            return []
        with self.read() as connection:
            try:
                return connection.execute(sql, arguments).fetchall()
            except sqlite3.OperationalError as error:
                if self.readonly and "no such" in str(error):  # of an older SAGE, or the writer is still making it
                    return []
                raise

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._opened()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                    self.close()
                    raise _state_error(self.home.state_db, error) from error
                raise

    def _opened(self) -> sqlite3.Connection:
        if self._pid != os.getpid():  # SQLite forbids a connection to cross a fork: the child makes its own
            self._inherited, self._connection, self._pid = self._connection, None, os.getpid()
        if self._connection is None:
            self._connection = self._open_readonly() if self.readonly else self._open()
        return self._connection

    def _open_readonly(self) -> sqlite3.Connection:
        path = self.home.state_db
        try:
            return _connect(f"{path.absolute().as_uri()}?mode=ro")
        except sqlite3.DatabaseError as error:
            raise _state_error(path, error) from error

    def _open(self) -> sqlite3.Connection:
        path = self.home.ensure().state_db
        try:
            return _prepared(path)
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise _state_error(path, error) from error
        with _recovery_lock(path):
            try:
                return _prepared(path)  # another process was faster
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise _state_error(path, error) from error
                why = str(error)
            kept = set_aside(path)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self.warnings.append(f"{path} was damaged ({why}); kept as {kept.name}, a new one was made")
            return _prepared(path)


def _refuse_others(job_id: str, rows: Iterable[OperatorRow | CheckpointRow]) -> None:
    if any(row.job_id != job_id for row in rows):
        raise ValueError(f"rows of another job than {job_id!r}")


def _connect(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        database,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        uri=database.startswith("file:"),
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepared(path: Path) -> sqlite3.Connection:
    """A connection to a sound database with the newest schema. Raises sqlite3.DatabaseError or StateError."""
    connection = _connect(str(path))
    try:
        _into_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: consistent after a crash, one fsync a checkpoint
        if path.stat().st_size < _QUICK_CHECK_BELOW:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict}")
        at = migrations.version(connection)
        if at > migrations.LATEST:
            raise StateError(
                f"{path} was written by a newer SAGE",
                cause=f"its version is {at}, this SAGE knows up to {migrations.LATEST}",
                hint="Update SAGE:  pip install -U sage-stack",
            )
        if at < migrations.LATEST:
            migrations.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _into_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:  # the change of mode does not wait for its turn as others do
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in ("malformed", "not a database", "disk image"))


def _state_error(path: Path, error: BaseException) -> StateError:
    text = str(error)
    hint = f"Give yourself write access to {path.parent}, or choose another place:  export SAGE_HOME=/path/to/state"
    if "full" in text:
        hint = f"Free space on the disk of {path.parent}"
    elif "locked" in text:
        hint = f"Another process is writing to {path} for long; find it:  fuser {path}"
    elif "malformed" in text or "not a database" in text:
        hint = f"Move it away and run the command again:  mv {path} {path}.bad"
    return StateError(f"Cannot use {path}", cause=text, hint=hint, details={"path": str(path)})


@contextlib.contextmanager
def _recovery_lock(path: Path) -> Iterator[None]:
    import fcntl

    with path.with_name(path.name + ".recovery").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

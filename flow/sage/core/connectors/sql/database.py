"""What connectors ask of a database: SQLite through `sqlite3`, others through SQLAlchemy (extra `sql`)."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from sage.common.errors import PipelineError

__all__ = ["Database", "Lost", "open_database"]

Parameters: TypeAlias = dict[str, Any] | Sequence[dict[str, Any]]
_BUSY = 30.0  # seconds to wait for another writer


class Lost(Exception):  # noqa: N818 - an event, told by those who know whether to try again
    """The connection broke, or the database is busy: it may work later."""


class Database(ABC):
    """One connection, used by one thread at a time. Statements have named parameters (`:name`).

    Methods raise PipelineError for what will not get better, `Lost` for what may.
    """

    dialect: str

    @abstractmethod
    def select(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a query."""

    @abstractmethod
    def page(self, query: str, key: str, after: Any, limit: int) -> list[dict[str, Any]]:
        """The first rows of a query in the order of the column `key`, behind the value `after` if there is one."""

    @abstractmethod
    def run(self, *steps: tuple[str, Parameters]) -> None:
        """Statements in one transaction: all or none. A list of parameters runs the statement for each."""

    @abstractmethod
    def columns(self, table: str) -> list[str]:
        """The columns of a table, in order. Raises PipelineError when there is none."""

    @abstractmethod
    def create_like(self, table: str, like: str, extra: Sequence[str]) -> None:
        """Make a table with the columns of another, without their constraints, and `extra` ones (text, then integers),
        unless it is there."""

    @abstractmethod
    def quoted(self, name: str) -> str:
        """A name of a table or column, as statements have it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection."""


class Sqlite(Database):
    """A file of SQLite; `read_only` ones must be there."""

    dialect = "sqlite"

    def __init__(self, path: str, *, read_only: bool) -> None:
        self._path = path
        place = Path(path).expanduser().absolute()
        if read_only and not place.is_file():
            raise PipelineError(f"Cannot read {place}", cause="no such file", hint="check the path")
        with self._errors():
            target = f"{place.as_uri()}?mode={'ro' if read_only else 'rwc'}"
            self._connection = sqlite3.connect(
                target, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row

    def select(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """See Database."""
        with self._errors():
            return [dict(row) for row in self._connection.execute(statement, parameters)]

    def page(self, query: str, key: str, after: Any, limit: int) -> list[dict[str, Any]]:
        """See Database."""
        name = self.quoted(key)
        behind = "" if after is None else f" WHERE {name} > :after"
        statement = f"SELECT * FROM ({query}) AS records{behind} ORDER BY {name} LIMIT :rows"  # noqa: S608 - the user's own query
        return self.select(statement, {"after": after, "rows": limit})

    def run(self, *steps: tuple[str, Parameters]) -> None:
        """See Database."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, parameters in steps:
                    if isinstance(parameters, dict):
                        self._connection.execute(statement, parameters)
                    else:
                        self._connection.executemany(statement, parameters)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def columns(self, table: str) -> list[str]:
        """See Database."""
        found = self.select("SELECT name FROM pragma_table_info(:name)", {"name": table})
        if not found:
            raise _no_table(table, self._path)
        return [row["name"] for row in found]

    def create_like(self, table: str, like: str, extra: Sequence[str]) -> None:
        """See Database."""
        text, *numbers = map(self.quoted, extra)
        more = "".join(f", CAST(0 AS INTEGER) AS {number}" for number in numbers)
        self.run(
            (
                (
                    f"CREATE TABLE IF NOT EXISTS {self.quoted(table)} AS SELECT CAST('' AS TEXT) AS {text}{more}, t.* "  # noqa: S608
                    f"FROM {self.quoted(like)} AS t WHERE 1 = 0"
                ),
                {},
            )
        )

    def quoted(self, name: str) -> str:
        """See Database."""
        return '"' + name.replace('"', '""') + '"'

    def close(self) -> None:
        """See Database."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Lost(f"{self._path}: {error}") from error
            raise _refused(self._path, error) from error


class Alchemy(Database):
    """Any database that SQLAlchemy has a dialect and a driver for."""

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise PipelineError(
                "Databases other than SQLite need SQLAlchemy",
                cause="it is not installed",
                hint="pip install 'sage-stack[sql]', and the driver of the database",
            ) from error
        self._alchemy = sqlalchemy
        self._shown = "the database"
        try:
            with self._errors():
                self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        except ImportError as error:
            raise PipelineError(
                "The driver of the database is not installed", cause=str(error), hint="install it with pip"
            ) from error
        self._shown = self._engine.url.render_as_string(hide_password=True)
        self.dialect = self._engine.dialect.name

    def select(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """See Database."""
        return self._select(self._alchemy.text(statement), parameters)

    def page(self, query: str, key: str, after: Any, limit: int) -> list[dict[str, Any]]:
        """See Database."""
        text, name = self._alchemy.text, self.quoted(key)
        statement = self._alchemy.select(text("*")).select_from(text(f"({query}) AS records"))
        if after is not None:
            statement = statement.where(text(f"{name} > :after"))
        return self._select(statement.order_by(text(name)).limit(limit), {} if after is None else {"after": after})

    def run(self, *steps: tuple[str, Parameters]) -> None:
        """See Database."""
        with self._errors(), self._engine.begin() as connection:
            for statement, parameters in steps:
                if parameters or isinstance(parameters, dict):
                    connection.execute(
                        self._alchemy.text(statement), parameters if isinstance(parameters, dict) else list(parameters)
                    )

    def columns(self, table: str) -> list[str]:
        """See Database."""
        with self._errors():
            inspector = self._alchemy.inspect(self._engine)
            if not inspector.has_table(table):
                raise _no_table(table, self._shown)
            return [str(column["name"]) for column in inspector.get_columns(table)]

    def create_like(self, table: str, like: str, extra: Sequence[str]) -> None:
        """See Database."""
        alchemy, metadata = self._alchemy, self._alchemy.MetaData()
        text, *numbers = extra
        with self._errors():
            target = alchemy.Table(like, metadata, autoload_with=self._engine)
            made = alchemy.Table(
                table,
                metadata,
                alchemy.Column(text, alchemy.String(128)),
                *(alchemy.Column(number, alchemy.BigInteger) for number in numbers),
                *(alchemy.Column(column.name, column.type) for column in target.columns),
            )
            try:
                made.create(self._engine, checkfirst=True)
            except alchemy.exc.DBAPIError:
                if not alchemy.inspect(self._engine).has_table(table):  # else another subtask was first
                    raise

    def quoted(self, name: str) -> str:
        """See Database."""
        return str(self._engine.dialect.identifier_preparer.quote_identifier(name))

    def close(self) -> None:
        """See Database."""
        self._engine.dispose()

    def _select(self, statement: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        with self._errors(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement, parameters).mappings()]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        exc = self._alchemy.exc
        try:
            yield
        except exc.DBAPIError as error:
            if error.connection_invalidated or isinstance(error, exc.InterfaceError) or _is_lost(error):
                raise Lost(f"{self._shown}: {error.orig}") from error
            raise _refused(self._shown, error.orig or error) from error
        except exc.SQLAlchemyError as error:
            raise _refused(self._shown, error) from error


def open_database(database: str, *, read_only: bool = False) -> Database:
    """A path to a file of SQLite, or a URL of SQLAlchemy (`postgresql+psycopg://…`)."""
    return Alchemy(database) if "://" in database else Sqlite(database, read_only=read_only)


def _is_lost(error: Any) -> bool:
    """Drivers tell a refused connection and a lock that lasts as an OperationalError, but a missing table too."""
    text = str(error.orig).lower()
    words = ("connect", "server closed", "gone away", "timed out", "timeout", "locked", "deadlock", "broken pipe")
    return type(error).__name__ == "OperationalError" and any(word in text for word in words)


def _no_table(table: str, database: str) -> PipelineError:
    return PipelineError(
        f"There is no table {table!r} in {database}", cause="a table must be there", hint="create it first"
    )


def _refused(database: str, error: BaseException) -> PipelineError:
    return PipelineError(f"{database} refused", cause=str(error), hint="check the statement, the tables, the rights")

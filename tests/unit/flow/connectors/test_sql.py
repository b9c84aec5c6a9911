"""Tables as sources and sinks: SQLite by itself and through SQLAlchemy (SPEC K10)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flow.connectors.harness import ManualClock, context, everything, put, read, reader, started, writer

from sage.common.errors import PipelineError, UpstreamError
from sage.core.api import LocalEnvironment
from sage.core.connectors.backoff import Backoff, Retry
from sage.core.connectors.sql.database import Alchemy, Lost, Sqlite, open_database
from sage.core.connectors.sql.sink import SqlSink
from sage.core.connectors.sql.source import SqlSource

pytestmark = pytest.mark.spec("K10", "K6")


class Shop:
    """A file of SQLite, seen by the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT, price REAL DEFAULT 1.5)")

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(self.path)
        with database:
            rows = database.execute(statement).fetchall()
        database.close()
        return rows


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop.db")


@pytest.fixture(params=["sqlite3", "sqlalchemy"])
def address(request: pytest.FixtureRequest, shop: Shop) -> str:
    if request.param == "sqlalchemy":
        pytest.importorskip("sqlalchemy")
        return f"sqlite:///{shop.path}"
    return str(shop.path)


def test_a_table_and_a_query(shop: Shop, address: str) -> None:
    shop("INSERT INTO orders (what) VALUES ('tea'), ('salt'), ('rice')")
    assert everything(SqlSource(address, "orders", "id", page=2))[1] == {"id": 2, "what": "salt", "price": 1.5}
    query = "SELECT what AS w, id FROM orders WHERE what <> 'tea';"
    assert everything(SqlSource(address, query, "w")) == [{"w": "rice", "id": 3}, {"w": "salt", "id": 2}]


def test_rows_of_sqlite_without_a_key(shop: Shop) -> None:
    shop("CREATE TABLE notes (text)")
    shop("INSERT INTO notes VALUES ('a'), ('b')")
    rows = everything(SqlSource(str(shop.path), "notes", "rowid"))
    assert rows == [{"rowid": 1, "text": "a"}, {"rowid": 2, "text": "b"}]


def test_following_a_table_looks_again_after_a_while(shop: Shop, address: str) -> None:
    clock = ManualClock()
    source = SqlSource(address, "orders", "id", every=10.0)
    assert not source.bounded
    made = reader(source, None, context(clock=clock))
    assert made.poll(10, 0.0) == []
    shop("INSERT INTO orders (what) VALUES ('tea')")
    assert made.poll(10, 0.0) == []
    clock.now += 10
    assert [row["what"] for row in read(made, 1)] == ["tea"]
    shop("INSERT INTO orders (what) VALUES ('salt')")
    assert [row["what"] for row in read(made, 1)] == ["salt"]
    made.close()


@pytest.mark.parametrize(
    ("rows", "key", "said"),
    [
        ("(1, 'a', 2), (2, 'a', 2)", "what", "'a' is there twice"),
        ("(1, NULL, 2)", "what", "1 rows have none"),
        ("(1, 'a', 2)", "nothing", "no such column|nothing"),
    ],
)
def test_a_key_that_is_none_is_refused(rows: str, key: str, said: str, shop: Shop, address: str) -> None:
    shop(f"INSERT INTO orders VALUES {rows}")
    with pytest.raises(PipelineError, match=said):
        everything(SqlSource(address, "SELECT * FROM orders", key))


@pytest.mark.parametrize("page", [1, 2, 3])
def test_equal_keys_are_found_across_pages_too(page: int, shop: Shop) -> None:
    shop("INSERT INTO orders VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 1), (4, 'c', 1)")
    with pytest.raises(PipelineError, match="'c' is there twice"):
        everything(SqlSource(str(shop.path), "orders", "what", page=page))


def test_what_is_not_there(shop: Shop, address: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such table"):
        everything(SqlSource(address, "nothing", "id"))
    with pytest.raises(PipelineError, match="no such file"):
        everything(SqlSource(str(tmp_path / "no.db"), "orders", "id"))
    assert not (tmp_path / "no.db").exists()
    (tmp_path / "text.db").write_text("no database at all, only some text that is long enough" * 100)
    with pytest.raises(PipelineError, match="not a database"):
        everything(SqlSource(str(tmp_path / "text.db"), "orders", "id"))
    with pytest.raises(PipelineError, match="no table 'nothing'"):
        writer(SqlSink(address, "nothing"))


def test_a_lost_connection_is_made_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop("INSERT INTO orders (what) VALUES ('tea'), ('salt'), ('rice')")
    clock = ManualClock()
    made = reader(SqlSource(str(shop.path), "orders", "id", page=1), None, context(clock=clock))
    rows = read(made, 1)
    page, failures = Sqlite.page, iter([True, True, False, False, False])

    def sometimes(*arguments: Any) -> list[dict[str, Any]]:
        if next(failures):
            raise Lost("the server went away")
        return page(*arguments)

    monkeypatch.setattr(Sqlite, "page", sometimes)
    assert made.poll(10, 0.0) == []
    assert made.poll(10, 0.0) == []  # it waits before it tries again
    clock.now += 1
    assert made.poll(10, 0.0) == []
    clock.now += 1
    rows += read(made)
    assert [row["what"] for row in rows] == ["tea", "salt", "rice"]


def test_attempts_come_to_an_end_and_grow_apart() -> None:
    backoff = Backoff(Retry(attempts=4, first=1.0, most=3.0), "the database")
    delays = [backoff.failed(OSError("gone")) for _ in range(4)]
    for delay, most in zip(delays, (1.0, 2.0, 3.0, 3.0), strict=True):
        assert most / 2 <= delay <= most
    with pytest.raises(UpstreamError, match=r"connection to the database is lost: OSError: gone \(5 attempts\)"):
        backoff.failed(OSError("gone"))
    backoff.succeeded()
    assert backoff.failed(OSError("gone")) <= 1.0


class TestTwoPhases:
    def test_rows_appear_with_the_commit_and_once(self, shop: Shop, address: str) -> None:
        made = started(SqlSink(address, "orders"))
        put(made, {"what": "tea"}, {"what": "salt", "id": 7})
        prepared = made.prepare(1)
        put(made, {"what": "rice"})
        assert shop("SELECT * FROM orders") == []
        made.commit(prepared)
        made.commit(prepared)
        assert shop("SELECT id, what FROM orders") == [(1, "tea"), (7, "salt")]
        made.close()

    def test_a_restore_moves_what_was_promised_and_drops_the_rest(self, shop: Shop, address: str) -> None:
        stored = []
        for subtask in (0, 1, 2):
            made = started(SqlSink(address, "orders"), (), subtask, 3)
            put(made, (subtask, f"promised {subtask}", 0.5))
            stored += made.prepare(1)
            put(made, (10 + subtask, "not promised", 0.5))
            made.prepare(2)
            made.close()
        for subtask in (1, 0):
            started(SqlSink(address, "orders"), stored, subtask, 2).close()
        assert sorted(shop("SELECT what FROM orders")) == [(f"promised {n}",) for n in range(3)]
        assert shop("SELECT * FROM sage_staging_orders") == []

    def test_many_rows_keep_their_order(self, shop: Shop) -> None:
        shop("CREATE TABLE log (n INTEGER)")
        made = started(SqlSink(str(shop.path), "log"))
        for number in range(3000):
            put(made, {"n": number})
        made.commit(made.prepare(1))
        made.close()
        assert [n for (n,) in shop("SELECT n FROM log ORDER BY rowid")] == list(range(3000))

    def test_a_commit_that_the_table_refuses_fails_and_moves_nothing(self, shop: Shop, address: str) -> None:
        shop("INSERT INTO orders VALUES (1, 'old', 1)")
        made = started(SqlSink(address, "orders"))
        put(made, {"id": 2}, {"id": 1})
        prepared = made.prepare(1)
        with pytest.raises(PipelineError, match="UNIQUE constraint failed"):
            made.commit(prepared)
        assert shop("SELECT id FROM orders") == [(1,)]
        shop("DELETE FROM orders")
        made.commit(prepared)
        assert shop("SELECT id FROM orders") == [(1,), (2,)]
        made.close()


def test_with_a_key_a_row_takes_the_place_of_the_old_one(shop: Shop, address: str) -> None:
    made = started(SqlSink(address, "orders", ("id",)))
    put(made, {"id": 1, "what": "tea"}, {"id": 2, "what": "salt"}, {"id": 1, "what": "green tea"})
    made.flush()
    assert shop("SELECT id, what, price FROM orders") == [(1, "green tea", 1.5), (2, "salt", 1.5)]
    put(made, {"id": 1, "price": 3.0})
    assert made.prepare(1) == []
    assert shop("SELECT what, price FROM orders WHERE id = 1") == [("green tea", 3.0)]
    with pytest.raises(PipelineError, match="has no key"):
        put(made, *[{"what": "x"}] * 1000)
    made.close()


@pytest.mark.parametrize("dialect", ["mysql", "oracle"])
def test_the_statements_of_other_databases(dialect: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sqlite, "dialect", dialect)
    made = started(SqlSink(str(shop.path), "orders", ("id",)))
    statements = made._statements(("id", "what"))  # type: ignore[attr-defined]
    if dialect == "mysql":
        assert statements[0].endswith('ON DUPLICATE KEY UPDATE "what" = VALUES("what")')
    else:
        put(made, {"id": 1, "what": "a"})
        made.flush()
        put(made, {"id": 1, "what": "b"})
        made.flush()
        assert shop("SELECT id, what FROM orders") == [(1, "b")]
    made.close()


@pytest.mark.parametrize(
    ("record", "said"),
    [({"what": "x", "weight": 1}, "has no column weight"), ((1, 2), "2 values for the 3 columns"), (5, "must be a")],
)
def test_records_that_are_no_rows_of_the_table(record: object, said: str, shop: Shop) -> None:
    made = started(SqlSink(str(shop.path), "orders"))
    with pytest.raises(PipelineError, match=said):
        put(made, record)
    made.close()
    with pytest.raises(PipelineError, match="no column number"):
        writer(SqlSink(str(shop.path), "orders", ("number",)))


def test_a_database_that_stays_locked_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage.core.connectors.sql.database._BUSY", 0.01)
    other = sqlite3.connect(shop.path, isolation_level=None)
    made = started(SqlSink(str(shop.path), "orders"))
    other.execute("BEGIN IMMEDIATE")
    put(made, {"what": "x"})
    with pytest.raises(UpstreamError, match=r"Cannot write to 'orders'.*locked"):
        made.prepare(1)
    other.execute("ROLLBACK")
    made.commit(made.prepare(1))  # what waited was kept
    assert shop("SELECT what FROM orders") == [("x",)]
    made.close()
    other.close()


def test_an_address_without_its_driver_or_library(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    with pytest.raises(PipelineError, match="The driver of the database is not installed"):
        open_database("postgresql+psycopg://user:secret@localhost/x")
    import builtins

    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("sqlalchemy"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PipelineError, match="need SQLAlchemy") as caught:
        Alchemy("postgresql://x")
    assert "sage-stack[sql]" in caught.value.hint


def test_from_one_table_into_another(shop: Shop, address: str) -> None:
    shop("INSERT INTO orders (what, price) VALUES ('tea', 2), ('salt', 1), ('tea', 3)")
    shop("CREATE TABLE spent (what TEXT PRIMARY KEY, total REAL)")
    env = LocalEnvironment("shop")
    totals = (
        env.from_sql(address, "orders", key="id")
        .map(lambda order: {"what": order["what"], "total": order["price"]})
        .key_by(lambda order: order["what"])
        .reduce(lambda a, b: {"what": a["what"], "total": a["total"] + b["total"]})
    )
    totals.write_sql(address, "spent", key="what")
    env.submit()
    assert sorted(shop("SELECT * FROM spent")) == [("salt", 1.0), ("tea", 5.0)]

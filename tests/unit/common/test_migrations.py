"""The numbered steps of state.db's schema: each alone, all together, seen from outside."""

import sqlite3
from collections.abc import Iterator

import pytest

from sage.common import migrations
from sage.common.home import SageHome
from sage.common.store import JobRow, StateStore


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_numbers_go_up_by_one() -> None:
    assert [step.number for step in migrations.MIGRATIONS] == list(range(1, migrations.LATEST + 1))


def test_step_1_makes_jobs(database: sqlite3.Connection) -> None:
    assert migrations.migrate(database, upto=1) == [1]
    database.execute(
        "INSERT INTO jobs (id, name, path, state, pid, started_at) VALUES ('a', 'n', 'p', 'running', 1, 2)"
    )
    row = database.execute("SELECT ended_at, error, records_in, parallelism FROM jobs").fetchone()
    assert row == (None, "", 0, 1)
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE jobs SET state = 'dancing'")


def test_step_2_makes_operators_and_keeps_jobs(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA foreign_keys = ON")
    migrations.migrate(database, upto=1)
    database.execute(
        "INSERT INTO jobs (id, name, path, state, pid, started_at) VALUES ('a', 'n', 'p', 'running', 1, 2)"
    )
    assert migrations.migrate(database, upto=2) == [2]
    database.execute("INSERT INTO operators (job_id, operator, kind, updated_at) VALUES ('a', 'map', 'map', 3)")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO operators (job_id, operator, kind, updated_at) VALUES ('b', 'map', 'map', 3)")
    database.execute("DELETE FROM jobs")
    assert database.execute("SELECT count(*) FROM operators").fetchone() == (0,)


def _a_job(database: sqlite3.Connection) -> None:
    database.execute(
        "INSERT INTO jobs (id, name, path, state, pid, started_at) VALUES ('a', 'n', 'p', 'running', 1, 2)"
    )


def test_step_3_gives_operators_their_shares_of_time_and_keeps_what_is_there(database: sqlite3.Connection) -> None:
    migrations.migrate(database, upto=2)
    _a_job(database)
    database.execute(
        "INSERT INTO operators (job_id, operator, kind, records_in, updated_at) VALUES ('a', 'm', 'map', 7, 3)"
    )
    assert migrations.migrate(database, upto=3) == [3]
    row = database.execute(
        "SELECT records_in, position, parallelism, idle_s, blocked_s, watermark, state_bytes, latency_p50, latency_p99"
        " FROM operators"
    ).fetchone()
    assert row == (7, 0, 1, 0.0, 0.0, None, 0, None, None)


def test_step_4_makes_checkpoints(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA foreign_keys = ON")
    migrations.migrate(database, upto=3)
    _a_job(database)
    assert migrations.migrate(database, upto=4) == [4]
    insert = (
        "INSERT INTO checkpoints (job_id, checkpoint_id, kind, state, triggered_at) VALUES (?, 1, 'checkpoint', ?, 3)"
    )
    database.execute(insert, ("a", "completed"))
    row = database.execute("SELECT duration_s, written, size, error FROM checkpoints").fetchone()
    assert row == (0.0, 0, 0, "")
    for job, state in (("b", "completed"), ("a", "dancing"), ("a", "completed")):
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(insert, (job, state))
    database.execute("DELETE FROM jobs")
    assert database.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


def test_all_at_once_and_never_twice(database: sqlite3.Connection) -> None:
    assert migrations.migrate(database) == list(range(1, migrations.LATEST + 1))
    assert migrations.migrate(database) == []
    assert migrations.version(database) == migrations.LATEST
    assert tables(database) == {"jobs", "operators", "checkpoints"}


def test_a_step_that_fails_undoes_the_whole(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        raise RuntimeError

    bad = migrations.Migration(migrations.LATEST + 1, "bad", fail)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, bad))
    with pytest.raises(RuntimeError):
        migrations.migrate(database, upto=bad.number)
    assert tables(database) == set()
    assert migrations.version(database) == 0


def test_inspection_shows_tables_and_rows(home: SageHome) -> None:
    assert migrations.inspect(home)["exists"] is False
    with StateStore(home) as store:
        store.upsert_job(JobRow("a", "n", "p", "running", 1, 1.0))
    seen = migrations.inspect(home)
    assert seen["version"] == migrations.LATEST
    assert seen["tables"]["jobs"]["rows"] == 1
    assert seen["tables"]["jobs"]["columns"]["id"] == "TEXT"
    assert "jobs_by_start" in seen["tables"]["jobs"]["indexes"]
    assert set(seen["tables"]) == {"jobs", "operators", "checkpoints"}

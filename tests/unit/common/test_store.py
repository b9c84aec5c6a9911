"""The state store: many writers, damage, versions."""

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sage.common import migrations
from sage.common import store as store_module
from sage.common.errors import StateError
from sage.common.home import SageHome
from sage.common.store import CheckpointRow, JobRow, OperatorRow, StateStore

JOB = JobRow("j1", "hello", "/p/pipeline.py", "running", 7, 100.0)


def operator(name: str, job: str = "j1", records: int = 1) -> OperatorRow:
    return OperatorRow(job, name, "map", records, records, 0, 0.5, 3, 101.0)


@pytest.mark.spec("P3")
def test_jobs_are_kept_and_replaced(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)
        store.upsert_job(replace(JOB, state="finished", ended_at=110.5, records_out=9))
        store.upsert_job(JobRow("j2", "later", "", "created", 8, 200.0))
    with StateStore(home) as store:
        assert [job.id for job in store.jobs()] == ["j2", "j1"]
        assert [job.id for job in store.jobs(limit=1)] == ["j2"]
        assert store.job("j1") == replace(JOB, state="finished", ended_at=110.5, records_out=9)
        assert store.job("none") is None


@pytest.mark.spec("P3")
def test_operator_metrics_replace_their_predecessors(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)
        store.record_operator_metrics("j1", [operator("split"), operator("embed")])
        store.record_operator_metrics("j1", [operator("embed", records=50)])
        assert store.operators("j1") == [operator("embed", records=50), operator("split")]
        store.record_operator_metrics("j1", [replace(operator("embed"), position=1, watermark=-5, latency_p50=0.25)])
        assert [row.operator for row in store.operators("j1")] == ["split", "embed"]
        assert store.operators("j1")[1].watermark == -5
        assert store.operators("none") == []


@pytest.mark.spec("P3")
def test_a_job_with_all_its_numbers_is_one_transaction(home: SageHome) -> None:
    first = CheckpointRow("j1", 1, "checkpoint", "completed", 105.0, 0.5, written=10, size=20)
    with StateStore(home) as store:
        store.record(JOB, [operator("a")], [first, CheckpointRow("j1", 2, "savepoint", "in_progress", 106.0)])
        with pytest.raises(sqlite3.IntegrityError):
            store.record(replace(JOB, records_in=9), [operator("b")], [CheckpointRow("j1", 3, "c", "dancing", 1.0)])
        assert (store.job("j1"), store.operators("j1")) == (JOB, [operator("a")])
        store.record(JOB, [], [replace(first, checkpoint_id=2, state="failed", error="disk full")])
        assert [row.state for row in store.checkpoints("j1")] == ["failed", "completed"]
        assert store.checkpoints("j1", limit=1)[0].error == "disk full"
        assert store.checkpoints("none") == []


def test_a_reader_takes_a_database_of_an_older_version(home: SageHome) -> None:
    connection = sqlite3.connect(home.state_db, isolation_level=None)
    migrations.migrate(connection, upto=2)
    connection.close()
    with StateStore(home, readonly=True) as reader:
        assert (reader.jobs(), reader.operators("j1"), reader.checkpoints("j1")) == ([], [], [])


def test_rows_of_another_job_are_refused(home: SageHome) -> None:
    with StateStore(home) as store, pytest.raises(ValueError, match="another job"):
        store.record_operator_metrics("j1", [operator("a", job="j2")])


def test_an_unknown_state_is_refused_and_nothing_is_written(home: SageHome) -> None:
    with StateStore(home) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.upsert_job(replace(JOB, state="dancing"))
        assert store.jobs() == []


def test_a_failed_transaction_leaves_no_trace(home: SageHome) -> None:
    with StateStore(home) as store:

        def half() -> None:
            with store.write() as connection:
                connection.execute(
                    "INSERT INTO jobs (id, name, path, state, pid, started_at) VALUES ('x','','','running',1,1)"
                )
                raise RuntimeError

        with pytest.raises(RuntimeError):
            half()
        assert store.jobs() == []
        store.upsert_job(JOB)
        assert len(store.jobs()) == 1


def test_the_database_is_in_wal_mode(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)
        with store.read() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_threads_share_a_store(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)

        def work(number: int) -> None:
            for turn in range(20):
                store.record_operator_metrics("j1", [operator(f"op{number}", records=turn)])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {row.operator: row.records_in for row in store.operators("j1")} == {f"op{n}": 19 for n in range(4)}


def test_a_forked_child_opens_its_own_connection(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)
        with store.read() as connection:
            parents = id(connection)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.upsert_job(replace(JOB, id="child"))
                with store.read() as connection:
                    code = 0 if id(connection) != parents else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert {job.id for job in store.jobs()} == {"j1", "child"}


@pytest.mark.spec("P3", "R2")
def test_processes_write_at_once_and_lose_nothing(home: SageHome) -> None:
    """Four processes make the database and write to it at the same moment."""
    code = (
        "import sys; from sage.common.store import *; from sage.common.home import SageHome\n"
        "store = StateStore(SageHome(sys.argv[1]))\n"
        "for n in range(25): store.upsert_job(JobRow(f'{sys.argv[2]}-{n}', 'n', '', 'running', 1, float(n)))\n"
        "store.close()"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(home.root), str(n)]) for n in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    with StateStore(home) as store:
        assert len(store.jobs(limit=1000)) == 100


@pytest.mark.spec("R3")
@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_kept_aside(home: SageHome, content: bytes) -> None:
    home.state_db.write_bytes(content)
    with StateStore(home) as store:
        store.upsert_job(JOB)
        assert store.jobs() == [JOB]
        assert len(store.warnings) == 1
        assert "was damaged" in store.warnings[0]
    kept = list(home.root.glob("state.db.corrupt-*"))
    assert [file.read_bytes() for file in kept] == [content]


def test_damage_inside_is_found_at_the_start(home: SageHome) -> None:
    with StateStore(home) as store:
        for number in range(200):
            store.upsert_job(replace(JOB, id=f"j{number}", name="n" * 200))
        with store.read() as connection:
            connection.execute("SELECT 1")
    data = bytearray(home.state_db.read_bytes())
    assert len(data) > 20_000
    data[8192:16384] = b"\xa5" * 8192
    home.state_db.write_bytes(data)
    with StateStore(home) as store:
        assert store.jobs() == []
        assert store.warnings


def test_two_processes_that_meet_the_damage_keep_one_copy(home: SageHome) -> None:
    home.state_db.write_bytes(b"x" * 5000)
    code = (
        "import sys; from sage.common.store import *; from sage.common.home import SageHome\n"
        "with StateStore(SageHome(sys.argv[1])) as s: s.upsert_job(JobRow(sys.argv[2], 'n', '', 'running', 1, 1.0))"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(home.root), str(n)]) for n in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert len(list(home.root.glob("state.db.corrupt-*"))) == 1
    with StateStore(home) as store:
        assert len(store.jobs()) == 3


def test_a_newer_database_is_left_alone(home: SageHome) -> None:
    with StateStore(home) as store, store.write() as connection:
        connection.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    with StateStore(home) as store, pytest.raises(StateError, match="newer SAGE"):
        store.jobs()
    assert not list(home.root.glob("*.corrupt-*"))


def test_a_full_disk_is_a_clear_error_and_the_store_recovers(home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JOB)
        with store.read() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]

        def fill() -> None:
            with store.write() as connection:
                connection.execute(f"PRAGMA max_page_count = {pages}")
                connection.executemany(
                    "INSERT INTO jobs (id, name, path, state, pid, started_at) VALUES (?, ?, '', 'running', 1, 1)",
                    [(f"big{number}", "n" * 1000) for number in range(1000)],
                )

        with pytest.raises(StateError) as caught:
            fill()
        assert "full" in caught.value.cause
        assert "Free space" in caught.value.hint
        assert store.jobs() == [JOB]


def test_a_writer_that_never_ends_is_a_clear_error(home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.05)
    with StateStore(home) as one, StateStore(home) as two:
        two.jobs()
        with one.write(), pytest.raises(StateError, match="locked"):
            two.upsert_job(JOB)


def test_reading_only_makes_nothing(tmp_path: Path) -> None:
    nowhere = SageHome(tmp_path / "none" / ".sage")
    with StateStore(nowhere, readonly=True) as store:
        assert store.jobs() == []
        assert store.job("x") is None
    assert not nowhere.root.exists()


def test_a_reader_sees_what_a_writer_commits(home: SageHome) -> None:
    with StateStore(home, readonly=True) as reader, StateStore(home) as writer:
        assert reader.jobs() == []
        writer.upsert_job(JOB)
        assert reader.jobs() == [JOB]
        with pytest.raises(StateError):
            reader.upsert_job(JOB)


def test_a_database_without_tables_yet_reads_as_empty(home: SageHome) -> None:
    """A reader may come between the making of the file and its first migration."""
    home.state_db.touch()
    with StateStore(home, readonly=True) as reader, StateStore(home) as writer:
        assert (reader.jobs(), reader.job("x"), reader.operators("x")) == ([], None, [])
        writer.upsert_job(JOB)
        assert reader.jobs() == [JOB]


def test_a_reader_of_a_damaged_database_says_so_and_changes_nothing(home: SageHome) -> None:
    home.state_db.write_bytes(b"y" * 5000)
    with StateStore(home, readonly=True) as store, pytest.raises(StateError, match="not a database"):
        store.jobs()
    assert home.state_db.read_bytes() == b"y" * 5000


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".sage").write_text("a file")
    with StateStore(SageHome(tmp_path / ".sage")) as store, pytest.raises(StateError, match="is a file, not a folder"):
        store.jobs()

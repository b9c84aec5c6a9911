"""What a plain script leaves in `.sage/` (SPEC P3, K11)."""

from __future__ import annotations

import pathlib
import threading
import time

import pytest

from sage.common.home import SageHome
from sage.common.store import StateStore
from sage.core.api import LocalEnvironment


def test_nothing_is_made_where_there_is_no_sage_folder() -> None:
    env = LocalEnvironment("plain")
    env.from_collection([1]).sink(lambda x: None)
    env.submit()
    assert list(pathlib.Path.cwd().iterdir()) == []


def test_a_sage_folder_nearby_is_used() -> None:
    pathlib.Path(".sage").mkdir(mode=0o700)
    env = LocalEnvironment("plain")
    env.from_collection([1]).sink(lambda x: None)
    handle = env.submit()
    with StateStore(SageHome(pathlib.Path.cwd() / ".sage"), readonly=True) as store:
        assert [row.id for row in store.jobs()] == [handle.job_id]


def test_a_running_job_is_seen_while_it_runs(home: SageHome) -> None:
    go, seen = threading.Event(), threading.Event()
    with StateStore(home) as store:
        assert store.jobs() == []
    env = LocalEnvironment("long")

    def sink(value: int) -> None:
        if value == 3:
            seen.set()
            go.wait(20)

    env.from_collection(range(5)).sink(sink)
    handle = env.submit(block=False)
    assert seen.wait(10)
    records, deadline = -1, time.monotonic() + 10
    with StateStore(home, readonly=True) as store:
        while records < 3 and time.monotonic() < deadline:
            rows = store.jobs()
            records = rows[0].records_in if rows else -1
            time.sleep(0.02)
        assert store.jobs()[0].state == "running"
    go.set()
    assert handle.wait(10) == "finished"
    assert handle.metrics().records_in == 5


def test_a_damaged_database_does_not_stop_a_pipeline(home: SageHome) -> None:
    home.ensure()
    home.state_db.write_bytes(b"this is no database" * 100)
    out: list[int] = []
    env = LocalEnvironment("plain")
    env.from_collection([1]).sink(out.append)
    env.submit()
    assert out == [1]


@pytest.mark.spec("K11")
def test_time_is_attributed_to_the_slow_operator() -> None:
    env = LocalEnvironment("busy")
    env.from_collection(range(20)).map(lambda x: x + 1, name="quick").map(
        lambda x: time.sleep(0.005), name="slow"
    ).sink(lambda x: None)
    busy = {row.operator: row.busy_s for row in env.submit().metrics().operators}
    assert busy["slow"] > 0.09
    assert busy["quick"] < 0.1 * busy["slow"]

"""Nexmark's queries give what SQL gives over the same events, on both backends, in parallel, with checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.flow.nexmark.events import START, Auction, Bid, Event, Person, generate
from benchmarks.flow.nexmark.queries import QUERIES, run
from benchmarks.flow.nexmark.reference import SQL, Database, settled

WANTED = [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19, 20, 22]
EVENTS = 12_000
IN_PARALLEL = {"parallelism": 3, "buffer.size": 64}
PERSISTED = {"state.backend": "rocksdb", "checkpointing": "exactly_once", "checkpoint.interval": "100ms"}


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return generate(EVENTS)


@pytest.fixture(scope="module")
def database(events: list[Event]) -> Iterator[Database]:
    with Database(events) as database:
        yield database


def test_there_is_every_query_that_is_wanted() -> None:
    assert [int(name[1:]) for name in QUERIES] == WANTED
    assert list(SQL) == list(QUERIES)


def test_events_are_those_that_nexmark_documents(events: list[Event]) -> None:
    numbers = [sum(type(event) is kind for event in events) for kind in (Person, Auction, Bid)]
    assert numbers == [EVENTS // 50, 3 * EVENTS // 50, 46 * EVENTS // 50]
    assert generate(500) == events[:500]
    times = [event.date_time for event in events]
    assert min(times) == START
    assert times != sorted(times)
    assert all(later > time - 50 for time, later in itertools.pairwise(times))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_gives_what_sql_gives(query: str, events: list[Event], database: Database) -> None:
    wanted = database.rows(query)
    assert wanted, "a query without results shows nothing"
    assert settled(query, run(query, events)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("query", [name for name in QUERIES if name != "q12"])
def test_it_does_in_parallel_too(query: str, events: list[Event], database: Database) -> None:
    assert settled(query, run(query, events, IN_PARALLEL)) == database.rows(query)


@pytest.mark.slow
@pytest.mark.parametrize("query", ["q3", "q4", "q5", "q9", "q11", "q17", "q19", "q20"])
def test_and_with_state_on_disk_and_checkpoints(
    query: str, events: list[Event], database: Database, tmp_path: Path
) -> None:
    settings = PERSISTED | {"checkpoint.dir": str(tmp_path)}
    assert settled(query, run(query, events, settings)) == database.rows(query)

"""Redis Streams through redis-py, against a small server of the tests' own (SPEC K10)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flow.connectors.harness import put, read, reader, started, until
from tests.unit.flow.connectors.resp_server import Connection, Store
from tests.unit.flow.connectors.servers import serving

from sage.common.errors import PipelineError, UpstreamError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.connectors.backoff import Retry
from sage.core.connectors.redis_streams import RedisStreamSink, RedisStreamSource
from sage.core.runtime import session

pytest.importorskip("redis")
pytestmark = pytest.mark.spec("K10", "K6")
QUICK = Retry(attempts=5, first=0.01, most=0.05)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    def talk(connection: socket.socket, number: int) -> None:
        Connection(store, connection).serve()

    with serving(talk) as server:
        yield f"redis://user:secret@127.0.0.1:{server.server_address[1]}/0?protocol=2"


def numbers(entries: list[Any]) -> list[int]:
    return [int(entry.fields["n"]) for entry in entries]


def test_entries_in_order_and_on_from_a_checkpoint(store: Store, url: str) -> None:
    for n in range(10):
        store.add("s", n=n)
    source = RedisStreamSource(url, ("s",), retry=QUICK)
    made = reader(source)
    entries = read(made, 4)
    assert entries[0].stream == "s"
    stored = made.snapshot()
    made.close()
    made = reader(source, stored)
    entries += read(made, 6)
    store.add("s", n=10)
    entries += read(made, 1)
    made.close()
    assert numbers(entries) == list(range(11))
    assert entries[-1].id == made.snapshot()[0].position


def test_several_streams_and_only_what_is_new(store: Store, url: str) -> None:
    store.add("a", n=0)
    made = reader(RedisStreamSource(url, ("a", "b"), "$", retry=QUICK))
    assert made.poll(10, 0.0) == []
    until(lambda: "XREAD" in store.seen)  # now it knows what is old
    store.add("b", n=1)
    store.add("a", n=2)
    assert sorted(numbers(read(made, 2))) == [1, 2]
    made.close()


def test_a_broken_connection_loses_and_doubles_nothing(store: Store, url: str) -> None:
    made = reader(RedisStreamSource(url, ("s",), retry=QUICK))
    entries = []
    for n in range(6):
        with store.changed:
            store.fail_next = "XREAD" if n % 2 else None
            store.fail_after = "XREAD" if n % 3 == 1 else None
            store.add("s", n=n)
        entries += read(made, 1)
    made.close()
    assert numbers(entries) == list(range(6))


def test_a_group_shows_how_far_checkpoints_have_come(store: Store, url: str) -> None:
    for n in range(3):
        store.add("s", n=n)
    made = reader(RedisStreamSource(url, ("s",), group="job", retry=QUICK))
    read(made, 2)
    stored = made.snapshot()
    assert store.groups["s", "job"] == "0"
    made.notify_complete(1, stored)
    assert store.groups["s", "job"] == "0-2"
    store.fail_next = "XGROUP"
    made.notify_complete(2, stored)  # only shows: nothing fails
    made.close()
    again = reader(RedisStreamSource(url, ("s",), group="job", retry=QUICK), stored)
    assert numbers(read(again, 1)) == [2]
    again.close()


def test_nobody_there_and_no_address(url: str) -> None:
    made = reader(RedisStreamSource("redis://user:secret@127.0.0.1:1", ("s",), retry=Retry(1, 0.001)))
    with pytest.raises(UpstreamError, match=r"redis://127\.0\.0\.1:1 is lost") as caught:
        read(made)
    assert "secret" not in str(caught.value)
    made.close()
    with pytest.raises(PipelineError, match="no address of Redis"):
        read(reader(RedisStreamSource("ftp://x", ("s",))))
    with pytest.raises(PipelineError, match="needs the name of a stream"):
        LocalEnvironment("x").from_redis("redis://x")


class TestSink:
    def test_entries_come_with_the_commit_and_once(self, store: Store, url: str) -> None:
        made = started(RedisStreamSink(url, "out", max_length=1000))
        put(made, {"n": 1, "list": [1], "flag": True}, {"n": "é"})
        prepared = made.prepare(1)
        assert store.fields("out") == []
        made.commit(prepared)
        made.commit(prepared)
        assert store.fields("out") == [{"n": "1", "list": "[1]", "flag": "true"}, {"n": "é"}]
        assert made.prepare(2) == []
        made.close()

    @pytest.mark.parametrize("moment", ["fail_next", "fail_after"])
    def test_a_connection_that_breaks_in_the_commit(self, moment: str, store: Store, url: str) -> None:
        made = started(RedisStreamSink(url, "out"))
        put(made, {"n": 1})
        prepared = made.prepare(1)
        setattr(store, moment, "EXEC")
        with pytest.raises(UpstreamError, match="refused"):
            made.commit(prepared)
        made.close()
        started(RedisStreamSink(url, "out"), prepared).close()
        assert store.fields("out") == [{"n": "1"}]

    def test_what_is_no_entry(self, url: str) -> None:
        made = started(RedisStreamSink(url, "out"))
        nothing: list[object] = [1, {}]
        for record in nothing:
            with pytest.raises(PipelineError, match="at least one field"):
                put(made, record)
        made.close()


def test_a_job_that_starts_again_writes_each_entry_once(store: Store, url: str, tmp_path: Path) -> None:
    for n in range(200):
        store.add("in", n=n)
    failures = iter([50, 120])
    fails_at, seen = next(failures), 0

    def step(entry: Any) -> dict[str, int]:
        nonlocal fails_at, seen
        seen += 1
        if seen == fails_at:
            fails_at = next(failures, -1)
            raise RuntimeError("fails")
        return {"n": int(entry.fields["n"])}

    config = {"checkpoint.interval": "10ms", "restart.strategy": "fixed-delay", "restart.delay": 1}
    with session.use(session.Session(home=SageHome(tmp_path / ".sage"))):
        env = LocalEnvironment("entries", config)
        env.from_redis(url, "in").map(step).write_redis(url, "out")
        handle = env.submit(block=False)
        until(lambda: len(store.fields("out")) >= 200)
        handle.cancel()
        assert handle.wait(20) == "cancelled"
    assert handle.restarts == 2
    assert [int(fields["n"]) for fields in store.fields("out")] == list(range(200))

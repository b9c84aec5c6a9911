"""Looking at a whole stack: real HTTP servers, a real daemon.json, a real state.db."""

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.common.home import SageHome
from sage.common.store import CheckpointRow, JobRow, OperatorRow, StateStore
from sage.tui.data import Collector, Snapshot

ENGINE = """
sage_engine_requests_running 2
sage_engine_requests_waiting 1
sage_engine_kv_cache_usage_ratio 0.25
sage_engine_prefix_hit_ratio 0.5
sage_engine_prompt_tokens_total {prompt}
sage_engine_generation_tokens_total {tokens}
sage_engine_requests_total{{finish_reason="stop"}} 4
sage_engine_ttft_seconds_bucket{{le="0.1"}} 4
sage_engine_ttft_seconds_bucket{{le="+Inf"}} 4
sage_engine_tpot_seconds_bucket{{le="0.01"}} 4
sage_engine_tpot_seconds_bucket{{le="+Inf"}} 4
"""
GATEWAY = """
sage_gateway_requests_total{{route="/metrics",code="200"}} {probes}
sage_gateway_request_seconds_bucket{{route="/metrics",le="1.0"}} {probes}
sage_gateway_request_seconds_bucket{{route="/metrics",le="+Inf"}} {probes}
sage_gateway_requests_total{{route="/v1/chat/completions",code="200"}} {ok}
sage_gateway_requests_total{{route="/v1/embeddings",code="502"}} {bad}
sage_gateway_inflight 3
sage_gateway_queue_depth 1
sage_gateway_rejected_total 0
sage_gateway_request_seconds_bucket{{route="/v1/chat/completions",le="1.0"}} {ok}
sage_gateway_request_seconds_bucket{{route="/v1/chat/completions",le="+Inf"}} {ok}
"""
EMBEDDING = """
sage_embedding_texts_total {texts}
sage_embedding_batch_size_count 10
sage_embedding_batch_size_sum 40
"""

Collect = Callable[..., Collector]


@pytest.fixture
def collect(home: SageHome, clock: Any) -> Iterator[Collect]:
    """Make a collector of the home whose clock moves only when told to."""
    made: list[Collector] = []

    def make(**options: Any) -> Collector:
        made.append(Collector(home, **{"clock": clock, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_nothing_there_is_an_empty_snapshot_and_leaves_no_trace(tmp_path: Path) -> None:
    home = SageHome(tmp_path / "nowhere" / ".sage")
    collector = Collector(home)
    taken = collector.collect()
    collector.close()
    assert taken.empty
    assert taken.notes == ()
    assert taken.system.cores == (os.cpu_count() or 1)
    assert taken.system.memory_total
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.spec("T1")
def test_a_whole_stack(collect: Collect, daemon: Callable[..., Any], record: Callable[..., None], clock: Any) -> None:
    engine = daemon("engine", "llm", metrics=ENGINE.format(prompt=100, tokens=1000))
    gateway = daemon("gateway", "gateway", metrics=GATEWAY.format(ok=10, bad=0, probes=1))
    embedding = daemon("embedding", "embedding", metrics=EMBEDDING.format(texts=0))
    record(gateway, engine, embedding)
    collector = collect()
    collector.collect()
    engine.metrics = ENGINE.format(prompt=120, tokens=1100)
    gateway.metrics = GATEWAY.format(ok=16, bad=2, probes=900)
    embedding.metrics = EMBEDDING.format(texts=30)
    clock.advance(2)
    taken = collector.collect()

    shown = [(one.name, one.state, one.pid) for one in taken.stack.daemons]
    assert shown == [(name, "ready", os.getpid()) for name in ("gateway", "engine", "embedding")]
    assert taken.stack.supervisor_alive
    load = taken.engines[0]
    assert (load.model, load.running, load.waiting, load.kv_usage) == ("sage-builtin", 2, 1, 0.25)
    assert (load.token_rate, load.prompt_rate) == (50, 10)
    assert load.ttft.p50 == pytest.approx(0.05)
    assert list(load.token_history) == [0, 50]
    assert load.requests == (("stop", 4.0),)
    assert taken.gateway is not None
    assert (taken.gateway.rate, taken.gateway.total, taken.gateway.errors) == (4, 18, 2)
    assert taken.gateway.error_ratio == pytest.approx(0.25)
    assert [route.route for route in taken.gateway.routes] == ["/v1/chat/completions", "/v1/embeddings"]
    assert taken.gateway.routes[0].rate == 3
    assert taken.gateway.latency.count == 6  # being looked at is not work
    texts = taken.embeddings[0]
    assert (texts.text_rate, texts.batch_size) == (15, 4)
    assert not taken.empty
    assert taken.troubles == ()


@pytest.mark.spec("T3")
def test_numbers_of_a_daemon_that_vanishes_stay_and_are_marked_as_old(
    collect: Collect,
    daemon: Callable[..., Any],
    record: Callable[..., None],
    child: Callable[[], subprocess.Popen[bytes]],
    clock: Any,
) -> None:
    engine, process = daemon("engine", "llm", metrics=ENGINE.format(prompt=1, tokens=7)), child()
    record(engine, pids={"engine": process.pid})
    collector = collect()
    assert collector.collect().engines[0].fresh.stale is False
    engine.stop()
    process.kill()
    process.wait()
    clock.advance(8)
    taken = collector.collect()
    assert taken.stack.daemons[0].state == "dead"
    assert taken.stack.daemons[0].pid is None
    load = taken.engines[0]
    assert load.tokens == 7
    assert load.fresh.stale
    assert load.fresh.age_s == 8
    assert load.fresh.reason == "not running"
    assert taken.troubles[0].startswith("engine is dead")


def test_one_missed_answer_is_no_alarm_but_three_seconds_of_silence_are(
    collect: Collect, daemon: Callable[..., Any], record: Callable[..., None], clock: Any
) -> None:
    engine = daemon("engine", "llm", metrics=ENGINE.format(prompt=1, tokens=7))
    record(engine)
    collector = collect()
    collector.collect()
    engine.metrics_status = 503
    clock.advance(1)
    assert collector.collect().engines[0].fresh.stale is False
    clock.advance(5)
    stale = collector.collect().engines[0].fresh
    assert (stale.stale, stale.age_s, stale.reason) == (True, 6, "/metrics answers 503")
    engine.metrics_status = 200
    clock.advance(1)
    assert collector.collect().engines[0].fresh.stale is False


def test_a_daemon_that_is_recorded_as_ready_but_sick_is_shown_as_it_is(
    collect: Collect, daemon: Callable[..., Any], record: Callable[..., None]
) -> None:
    engine = daemon("engine", "llm", status=503, health={"status": "unhealthy", "reason": "out of memory"})
    record(engine)
    (view,) = collect().collect().stack.daemons
    assert (view.state, view.last_error) == ("unhealthy", "out of memory")


@pytest.mark.spec("T3")
def test_hanging_daemons_are_asked_side_by_side(
    collect: Collect, daemon: Callable[..., Any], record: Callable[..., None]
) -> None:
    daemons = [daemon(f"engine{i}", "llm", hold=threading.Event()) for i in range(4)]
    record(*daemons)
    started = time.monotonic()
    taken = collect(timeout_s=0.3).collect()
    assert time.monotonic() - started < 2
    assert {view.health for view in taken.stack.daemons} == {"no answer in time"}


def test_a_restart_at_another_address_is_followed(
    collect: Collect, daemon: Callable[..., Any], record: Callable[..., None], clock: Any
) -> None:
    first = daemon("engine", "llm", metrics=ENGINE.format(prompt=1, tokens=5000))
    record(first)
    collector = collect()
    collector.collect()
    first.stop()
    second = daemon("engine", "llm", metrics=ENGINE.format(prompt=1, tokens=5))
    record(second, restarts=1)
    clock.advance(1)
    load = collector.collect().engines[0]
    assert load.tokens == 5
    assert load.token_rate is None
    assert collector.collect().stack.daemons[0].restarts == 1


def test_daemons_come_and_go(collect: Collect, daemon: Callable[..., Any], record: Callable[..., None]) -> None:
    engine, gateway = daemon("engine", "llm"), daemon("gateway", "gateway")
    collector = collect()
    record(engine)
    assert [d.name for d in collector.collect().stack.daemons] == ["engine"]
    record(gateway, engine)
    assert [d.name for d in collector.collect().stack.daemons] == ["gateway", "engine"]
    record(gateway)
    taken = collector.collect()
    assert [d.name for d in taken.stack.daemons] == ["gateway"]
    assert taken.engines == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"daemons": {"engine": 7}}', b"null"])
def test_a_damaged_daemon_json_never_stops_it(collect: Collect, home: SageHome, content: bytes) -> None:
    home.daemon_json.write_bytes(content)
    taken = collect().collect()
    assert isinstance(taken, Snapshot)
    assert taken.stack.daemons == ()


def test_daemons_stay_in_sight_while_daemon_json_is_damaged(
    collect: Collect, home: SageHome, daemon: Callable[..., Any], record: Callable[..., None]
) -> None:
    record(daemon("engine", "llm"))
    collector = collect()
    collector.collect()
    home.daemon_json.write_text("{ half")
    taken = collector.collect()
    assert [d.name for d in taken.stack.daemons] == ["engine"]
    assert "damaged" in taken.notes[0]


def job(home: SageHome, **fields: Any) -> None:
    """Write a job with one operator."""
    row = JobRow("j1", "demo", "/p/pipeline.py", "running", os.getpid(), time.time(), **fields)
    with StateStore(home) as store:
        store.upsert_job(row)
        done = row.records_in
        store.record_operator_metrics(
            "j1", [OperatorRow("j1", "map", "map", done, done, 1, done * 0.005, 2, 1000 + done / 100)]
        )


@pytest.mark.spec("T1")
def test_a_running_pipeline(collect: Collect, home: SageHome, clock: Any) -> None:
    job(home, records_in=100, records_out=40)
    collector = collect()
    collector.collect()
    clock.advance(1)
    job(home, records_in=200, records_out=90)
    (view,) = collector.collect().jobs
    assert (view.name, view.state, view.records_in, view.records_out) == ("demo", "running", 200, 90)
    assert view.rate == pytest.approx(50)
    (operator,) = view.operators
    assert (operator.queue, operator.errors) == (2, 1)
    assert operator.rate == pytest.approx(100)
    assert operator.busy == pytest.approx(0.5)


def test_a_pipeline_whose_process_was_killed_is_lost(
    collect: Collect, home: SageHome, child: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = child()
    with StateStore(home) as store:
        store.upsert_job(JobRow("j1", "demo", "p.py", "running", process.pid, time.time()))
    assert collect().collect().jobs[0].state == "running"
    process.kill()
    process.wait()
    assert collect().collect().jobs[0].state == "lost"


def test_a_pid_that_was_given_again_is_not_the_job(collect: Collect, home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JobRow("j1", "demo", "p.py", "running", os.getpid(), time.time() - 10_000_000))
    assert collect().collect().jobs[0].state == "lost"


def test_a_finished_pipeline_shows_its_mean_rate(collect: Collect, home: SageHome) -> None:
    with StateStore(home) as store:
        store.upsert_job(JobRow("j1", "demo", "p.py", "finished", 1, 100.0, 110.0, "", 500, 50))
    (view,) = collect().collect().jobs
    assert (view.seconds, view.rate) == (10, 5)


@pytest.mark.spec("K11")
def test_operators_come_in_their_order_with_shares_lag_and_the_last_checkpoint(
    collect: Collect, home: SageHome
) -> None:
    job = JobRow("j1", "n", "", "finished", 1, 100.0, 110.0)
    rows = [
        OperatorRow("j1", "zip", "source", 0, 500, 0, 1.0, 0, 109.0, 0, 2, 4.0, 10.0),
        OperatorRow("j1", "avg", "map", 500, 500, 0, 1.0, 0, 109.0, 1, 1, 4.0, 0.0, 105_000, 2048, 0.01, 0.02),
        OperatorRow("j1", "end", "sink", 500, 0, 0, 1.0, 0, 109.0, 2, 1, 4.0, 0.0, -(10**15)),
    ]
    with StateStore(home) as store:
        store.record(
            job,
            rows,
            [
                CheckpointRow("j1", 1, "checkpoint", "failed", 101.0, error="disk full"),
                CheckpointRow("j1", 2, "checkpoint", "completed", 103.0, 0.5, written=10, size=20),
                CheckpointRow("j1", 3, "checkpoint", "in_progress", 109.0),
            ],
        )
    (view,) = collect().collect().jobs
    first, middle, last = view.operators
    assert [operator.name for operator in view.operators] == ["zip", "avg", "end"]
    assert (first.rate, first.busy, first.idle, first.blocked) == (50.0, 0.05, 0.2, 0.5)
    assert (middle.lag_s, middle.state_bytes, middle.latency_p99) == (4.0, 2048, 0.02)
    assert last.lag_s is None  # no time of our calendar
    assert view.checkpoint is not None
    assert (view.checkpoint.number, view.checkpoint.size, view.checkpoint.failed) == (2, 20, 1)


def test_only_the_jobs_that_are_looked_at_bring_their_operators(collect: Collect, home: SageHome) -> None:
    with StateStore(home) as store:
        for number in range(3):
            store.upsert_job(JobRow(f"j{number}", "demo", "p.py", "finished", 1, 100.0 + number, 200.0))
            store.record_operator_metrics(
                f"j{number}", [OperatorRow(f"j{number}", "map", "map", 1, 1, 0, 0.1, 0, 150.0)]
            )
    collector = collect()
    assert [len(view.operators) for view in collector.collect().jobs] == [1, 0, 0]
    collector.selected_job = "j0"
    assert [len(view.operators) for view in collector.collect().jobs] == [1, 0, 1]


def test_a_damaged_state_db_is_a_note_and_is_left_alone(collect: Collect, home: SageHome) -> None:
    home.state_db.write_bytes(b"this is no database" * 100)
    taken = collect().collect()
    assert taken.jobs == ()
    assert "state.db" in taken.notes[0]
    assert home.state_db.exists()


def test_a_state_db_that_is_written_to_right_now_does_not_hold_it(collect: Collect, home: SageHome) -> None:
    job(home, records_in=1)
    writer = sqlite3.connect(home.state_db, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert len(collect().collect().jobs) == 1
        assert time.monotonic() - started < 3
    finally:
        writer.close()

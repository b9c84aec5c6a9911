"""What a job says of itself: shares of time, watermarks, state, latencies, checkpoints; in state.db, to Prometheus."""

import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sage.common.errors import ConfigError
from sage.common.home import SageHome
from sage.common.store import StateStore
from sage.core.api import JobHandle, LocalEnvironment
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import TumblingEventTimeWindows
from sage.core.runtime import debug_log, prometheus, session
from sage.core.runtime.metrics import JobMetrics, OperatorMetrics, percentile
from sage.core.runtime.rates import RateMeter
from sage.core.runtime.reporter import ProgressSnapshot
from sage.core.testing import PAUSE, MarkedSource

pytestmark = pytest.mark.spec("K11")


def eventually(holds: Callable[[], Any], within: float = 20.0) -> Any:
    deadline = time.monotonic() + within
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not come to hold"
        threading.Event().wait(0.01)
    return value


def of(handle: JobHandle) -> dict[str, OperatorMetrics]:
    return {row.operator: row for row in handle.metrics().operators}


def test_idle_and_back_pressured_time_shows_while_a_task_still_waits() -> None:
    gate, source = threading.Event(), MarkedSource([*range(60), PAUSE])
    config = {"buffer": {"size": 1, "timeout": 0}, "channel": {"capacity": 1}, "object.reuse": True}
    env = LocalEnvironment("waits", config)
    stream = env.from_source(source, name="source").rebalance()
    stream.map(lambda n: (gate.wait(20), n)[1], name="stuck").rebalance().sink(lambda n: None, name="out")
    handle = env.submit(block=False)
    try:
        eventually(lambda: of(handle)["source"].blocked_s > 0.1)
        eventually(lambda: of(handle)["out"].idle_s > 0.1)
        assert of(handle)["stuck"].blocked_s < 0.1
    finally:
        gate.set()
    source.wait_until_paused()
    eventually(lambda: of(handle)["source"].idle_s > 0.05)
    source.proceed()
    handle.wait(20)
    for row in of(handle).values():
        assert row.idle_s + row.blocked_s + row.busy_s <= handle.seconds * row.parallelism * 1.2 + 0.1


def test_watermark_state_and_latency_of_a_job(home: SageHome) -> None:
    source: MarkedSource[Any] = MarkedSource([("a", 1000), ("b", 9000), PAUSE])
    env = LocalEnvironment("time", {"metrics": {"latency_interval": 0.001}})
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda record: record[1])
    timed = env.from_source(source).assign_timestamps_and_watermarks(strategy)
    counts = timed.key_by(lambda record: record[0]).window(TumblingEventTimeWindows.of("1h")).count()
    counts.sink(lambda n: None, name="out")
    handle = env.submit(block=False)
    source.wait_until_paused()
    window = next(name for name in of(handle) if "window" in name or "count" in name)
    assert eventually(lambda: of(handle)[window].watermark) == 8999
    assert eventually(lambda: of(handle)[window].state_bytes) > 0
    with StateStore(home, readonly=True) as store:
        eventually(lambda: any(row.watermark == 8999 for row in store.operators(handle.job_id)))
    source.proceed()
    handle.wait(20)
    assert of(handle)[window].watermark is None  # event time has ended
    assert of(handle)[window].state_bytes >= 0


def test_latency_markers_come_to_percentiles() -> None:
    env = LocalEnvironment("latency", {"metrics": {"latency_interval": 0.001}, "buffer.timeout": 0})
    env.from_source(iter(range(2000))).rebalance().map(lambda n: n).rebalance().sink(lambda n: None, name="out")
    rows = of(env.submit())
    assert rows["out"].latency_p50 is not None
    assert rows["out"].latency_p99 is not None
    assert 0 <= rows["out"].latency_p50 <= rows["out"].latency_p99 < 10
    assert [name for name, row in rows.items() if row.latency_p50 is not None] == ["out"]


def test_percentiles_are_nearest_ranks() -> None:
    assert percentile([], 0.5) is None
    assert [percentile(range(1, 101), share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]


def test_checkpoints_are_counted_and_recorded(home: SageHome) -> None:
    source: MarkedSource[int] = MarkedSource([1, 2, PAUSE, 3])
    env = LocalEnvironment("kept", {"checkpoint": {"interval": "1h"}})
    env.from_source(source).key_by(lambda n: n).reduce(lambda a, b: a + b).sink(lambda n: None)
    handle = env.submit(block=False)
    source.wait_until_paused()
    handle.savepoint(timeout=20)
    totals = handle.metrics().checkpoints
    assert (totals.completed, totals.failed) == (1, 0)
    assert totals.last_size > 0
    source.proceed()
    handle.wait(20)
    assert handle.metrics().checkpoints.completed == 2
    with StateStore(home, readonly=True) as store:
        rows = store.checkpoints(handle.job_id)
        assert [(row.kind, row.state) for row in rows] == [("checkpoint", "completed"), ("savepoint", "completed")]
        assert all(row.duration_s > 0 and row.size > 0 for row in rows)
        assert [row.operator for row in store.operators(handle.job_id)] == [
            row.operator for row in handle.metrics().operators
        ]


def test_the_store_is_written_as_often_as_is_asked_for(home: SageHome) -> None:
    source = MarkedSource([1, PAUSE, 2])
    env = LocalEnvironment("seldom")
    env.configure_debug(metrics_interval="1h")
    env.from_source(source).sink(lambda n: None)
    seen: list[ProgressSnapshot] = []
    with session.use(session.Session(on_progress=seen.append)):
        handle = env.submit(block=False)
        source.wait_until_paused()
        eventually(lambda: len(seen) >= 3)
    with StateStore(home, readonly=True) as store:
        (row,) = store.jobs()
        assert (row.state, row.records_in) != ("running", 2)
    source.proceed()
    handle.wait(20)
    with StateStore(home, readonly=True) as store:
        (row,) = store.jobs()
        assert (row.state, row.records_in) == ("finished", 2)
    assert {"sink", "from_source"} <= seen[0].rates.keys()


def test_rates_and_shares_are_of_the_time_between_two_looks() -> None:
    def metrics(records: int, busy: float, idle: float) -> JobMetrics:
        row = OperatorMetrics("m", "map", 2, records_in=records, records_out=1, busy_s=busy, idle_s=idle)
        return JobMetrics(records, 0, [row])

    meter = RateMeter()
    meter.add(1.0, metrics(100, 0.5, 0.0))
    rate, rates = meter.add(3.0, metrics(500, 1.5, 2.0))
    assert rate == 200
    assert (rates["m"].rate, rates["m"].busy, rates["m"].idle, rates["m"].blocked) == (200, 0.25, 0.5, 0.0)
    rate, rates = meter.add(4.0, metrics(10, 0.0, 0.0))  # the job has started again
    assert (rate, rates["m"].rate) == (0, 0)
    assert meter.add(4.0, metrics(10, 0.0, 0.0))[0] == 0


class TestPrometheus:
    def scrape(self, port: int) -> dict[str, dict[tuple[str, ...], float]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(value for key, value in sorted(sample.labels.items()) if key not in ("job_id", "kind"))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    def test_a_running_job_is_served_and_then_no_more(self) -> None:
        port = free_port()
        source = MarkedSource([1, 2, 3, PAUSE])
        env = LocalEnvironment("served", {"metrics": {"prometheus": {"port": port}}, "checkpoint.interval": "1h"})
        env.from_source(source, name="numbers").key_by(lambda n: n).reduce(lambda a, b: a, name="sum").sink(
            lambda n: None, name="out"
        )
        handle = env.submit(block=False)
        source.wait_until_paused()
        handle.savepoint(timeout=20)
        seen = self.scrape(port)
        assert seen["sage_flow_records_in_total"]["served", "out"] == 3
        assert seen["sage_flow_records_out_total"]["served", "numbers"] == 3
        assert seen["sage_flow_checkpoints_total"]["served", "completed"] == 1
        assert seen["sage_flow_checkpoint_size_bytes"]["served",] > 0
        assert seen["sage_flow_idle_seconds_total"]["served", "out"] >= 0
        assert seen["sage_flow_state_bytes"]["served", "sum"] > 0
        assert seen["sage_flow_restarts_total"]["served",] == 0
        source.proceed()
        handle.wait(20)
        with pytest.raises(OSError):
            self.scrape(port)
        assert prometheus._exporters == {}

    def test_jobs_of_a_process_share_a_port(self) -> None:
        port, sources = free_port(), [MarkedSource([1, PAUSE]) for _ in range(2)]
        handles = []
        for number, source in enumerate(sources):
            env = LocalEnvironment(f"job-{number}", {"metrics.prometheus.port": port})
            env.from_source(source).sink(lambda n: None, name="out")
            handles.append(env.submit(block=False))
            source.wait_until_paused()
        names = {labels[0] for labels in self.scrape(port)["sage_flow_records_in_total"]}
        assert names == {"job-0", "job-1"}
        for source, handle in zip(sources, handles, strict=True):
            source.proceed()
            handle.wait(20)

    def test_only_this_machine_is_served(self) -> None:
        served = prometheus.Exporter(0)
        try:
            assert served._server.server_address[0] == "127.0.0.1"
        finally:
            served._server.shutdown()
            served._server.server_close()

    def test_a_port_that_is_taken_is_told_and_the_job_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            env = LocalEnvironment("busy", {"metrics.prometheus.port": taken.getsockname()[1]})
            source: MarkedSource[int] = MarkedSource([1, PAUSE])
            env.from_source(source).sink(lambda n: None)
            handle = env.submit(block=False)
            source.wait_until_paused()
            eventually(lambda: [record for record in caplog.messages if "metrics are not served" in record])
            source.proceed()
            assert handle.wait(20) == "finished"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestConfigureDebug:
    @pytest.fixture(autouse=True)
    def logger(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        logger = logging.getLogger("sage")
        monkeypatch.setattr(debug_log, "_handler", None)
        monkeypatch.setattr(logger, "handlers", [])
        level = logger.level
        yield logger
        logger.setLevel(level)

    def test_messages_of_the_level_are_shown(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
        env = LocalEnvironment("debug")
        env.configure_debug(log_level="debug")
        env.from_collection([1]).sink(lambda n: None)
        env.submit()
        shown = capsys.readouterr().err
        assert "DEBUG" in shown
        assert "debug: finished" in shown
        env.configure_debug(log_level="ERROR")
        env.from_collection([1]).sink(lambda n: None)
        env.submit()
        assert capsys.readouterr().err == ""

    def test_what_is_not_given_stays(self) -> None:
        env = LocalEnvironment("debug", {"metrics.interval": "7s"})
        env.configure_debug(enable_tracing=True)
        assert (env._settings.observability.tracing, env._settings.observability.interval) == (True, 7.0)
        env.configure_debug(metrics_interval="10s")
        assert (env._settings.observability.tracing, env._settings.observability.interval) == (True, 10.0)
        env.configure_debug(enable_tracing=False)
        assert env._settings.observability.tracing is False

    @pytest.mark.parametrize(
        "wrong", [{"metrics_interval": "soon"}, {"log_level": "LOUD"}, {"log_level": True}, {"enable_tracing": "maybe"}]
    )
    def test_what_does_not_fit_is_refused_at_the_users_line(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"test_metrics\.py"):
            LocalEnvironment("debug").configure_debug(**wrong)

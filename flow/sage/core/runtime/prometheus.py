"""The numbers of the jobs of this process for Prometheus, over HTTP on the loopback interface.

`metrics.prometheus.port` in the configuration; jobs of one process that name the same port share a server, which stands
while one of them runs. Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sage.core.runtime.metrics import JobMetrics, OperatorMetrics

if TYPE_CHECKING:
    from sage.core.runtime.local.job import LocalJob

__all__ = ["Exporter", "exporter"]

HOST = "127.0.0.1"

_JOB = ["job", "job_id"]
_OPERATOR = [*_JOB, "operator", "kind"]

_COUNTERS: dict[str, tuple[str, Callable[[OperatorMetrics], float]]] = {
    "sage_flow_records_in": ("Records that came to the operator.", lambda row: row.records_in),
    "sage_flow_records_out": ("Records that the operator gave.", lambda row: row.records_out),
    "sage_flow_errors": ("Records at which its function raised.", lambda row: row.errors),
    "sage_flow_late_records": ("Records that came too late for the operator.", lambda row: row.late),
    "sage_flow_busy_seconds": ("Seconds in the operator, over all subtasks.", lambda row: row.busy_s),
    "sage_flow_idle_seconds": ("Seconds in which its tasks had no input.", lambda row: row.idle_s),
    "sage_flow_backpressured_seconds": ("Seconds in which receivers were full.", lambda row: row.blocked_s),
}
_GAUGES: dict[str, tuple[str, Callable[[OperatorMetrics], float | None]]] = {
    "sage_flow_parallelism": ("Subtasks.", lambda row: row.parallelism),
    "sage_flow_queue_records": ("Records that wait before the operator.", lambda row: row.queue_depth),
    "sage_flow_state_bytes": ("Keyed state, roughly.", lambda row: row.state_bytes),
    "sage_flow_watermark_seconds": (
        "Event time, in seconds since the epoch.",
        lambda row: None if row.watermark is None else row.watermark / 1000,
    ),
    "sage_flow_watermark_lag_seconds": (
        "How far event time is behind the clock.",
        lambda row: None if row.watermark is None else time.time() - row.watermark / 1000,
    ),
}
_JOB_GAUGES: dict[str, tuple[str, Callable[[JobMetrics], float | None]]] = {
    "sage_flow_checkpoint_duration_seconds": ("Of the last one.", lambda job: _last(job, "last_duration_s")),
    "sage_flow_checkpoint_written_bytes": ("What the last one added.", lambda job: _last(job, "last_written")),
    "sage_flow_checkpoint_size_bytes": ("All that the last one refers to.", lambda job: _last(job, "last_size")),
}


class Exporter(Collector):
    """A server for the jobs that were added. Raises OSError when its port cannot be had (0: any that is free)."""

    def __init__(self, port: int) -> None:
        self._wanted = port
        self._jobs: dict[str, LocalJob] = {}
        registry = CollectorRegistry()
        registry.register(self)
        self._server, self._thread = start_http_server(port, addr=HOST, registry=registry)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def add(self, job: LocalJob) -> None:
        """Serve this job too."""
        with _lock:
            self._jobs[job.id] = job

    def remove(self, job: LocalJob) -> None:
        """The job has ended; without any other the server closes."""
        with _lock:
            self._jobs.pop(job.id, None)
            over = not self._jobs
            if over:
                _exporters.pop(self._wanted, None)
        if over:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before jobs run."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, with the counters as they are now."""
        with _lock:
            jobs = [(job, job.metrics()) for job in self._jobs.values()]
        rows = [([job.name, job.id, row.operator, row.kind], row) for job, seen in jobs for row in seen.operators]
        for name, (text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=_OPERATOR)
            for labels, row in rows:
                counter.add_metric(labels, read(row))
            yield counter
        for name, (text, look) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=_OPERATOR)
            for labels, row in rows:
                _set(gauge, labels, look(row))
            yield gauge
        yield _latencies(rows)
        yield from _of_jobs([([job.name, job.id], seen) for job, seen in jobs])


def _latencies(rows: list[tuple[list[str], OperatorMetrics]]) -> Metric:
    text = "From a source to the end of the pipeline, of the last latency markers."
    gauge = GaugeMetricFamily("sage_flow_latency_seconds", text, labels=[*_OPERATOR, "quantile"])
    for labels, row in rows:
        _set(gauge, [*labels, "0.5"], row.latency_p50)
        _set(gauge, [*labels, "0.99"], row.latency_p99)
    return gauge


def _of_jobs(jobs: list[tuple[list[str], JobMetrics]]) -> Iterator[Metric]:
    restarts = CounterMetricFamily("sage_flow_restarts", "Attempts after a failure.", labels=_JOB)
    checkpoints = CounterMetricFamily("sage_flow_checkpoints", "Checkpoints that ended.", labels=[*_JOB, "state"])
    for labels, seen in jobs:
        restarts.add_metric(labels, seen.restarts)
        checkpoints.add_metric([*labels, "completed"], seen.checkpoints.completed)
        checkpoints.add_metric([*labels, "failed"], seen.checkpoints.failed)
    yield restarts
    yield checkpoints
    for name, (text, read) in _JOB_GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=_JOB)
        for labels, seen in jobs:
            _set(gauge, labels, read(seen))
        yield gauge


def _last(job: JobMetrics, name: str) -> float | None:
    return float(getattr(job.checkpoints, name)) if job.checkpoints.last_id is not None else None


def _set(gauge: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        gauge.add_metric(labels, value)


_lock = threading.RLock()
_exporters: dict[int, Exporter] = {}


def exporter(port: int) -> Exporter:
    """The server on that port; made if need be. Raises OSError."""
    with _lock:
        if port not in _exporters:
            _exporters[port] = Exporter(port)
        return _exporters[port]

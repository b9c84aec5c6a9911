"""Writes a job's state and counters into the state store, and hands snapshots to whoever shows progress.

A pipeline never fails because its numbers cannot be kept: the first problem is said once on stderr, then it is quiet.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.core.runtime.metrics import CheckpointTotals, JobMetrics, OperatorMetrics
from sage.core.runtime.rates import OperatorRates, RateMeter
from sage.core.runtime.settings import ObservabilitySettings

if TYPE_CHECKING:
    from sage.common.home import SageHome
    from sage.common.store import CheckpointRow, JobRow, OperatorRow, StateStore
    from sage.core.checkpoint.coordinator import CheckpointStats
    from sage.core.runtime.local.job import LocalJob
    from sage.core.runtime.prometheus import Exporter

__all__ = ["JobReporter", "ProgressSnapshot"]

log = logging.getLogger("sage.core")

_EARLY = 0.1  # seconds; reports come on a grid of their own


@dataclass(slots=True, frozen=True)
class ProgressSnapshot:
    """A job at a moment; `rate` is records read a second since the last snapshot, `rates` says more of each operator,
    by its name."""

    job_id: str
    name: str
    elapsed_s: float
    records_in: int
    records_out: int
    rate: float
    operators: list[OperatorMetrics]
    rates: dict[str, OperatorRates] = field(default_factory=dict)
    checkpoints: CheckpointTotals = field(default_factory=CheckpointTotals)
    restarts: int = 0


class JobReporter:
    """One job's way into `home` (None: nowhere) and to `on_progress`; called from one thread at a time.

    The store is written at most every `settings.interval` seconds, and when the state of the job changes.
    """

    def __init__(
        self,
        home: SageHome | None,
        *,
        path: str,
        parallelism: int,
        on_progress: Callable[[ProgressSnapshot], None] | None = None,
        settings: ObservabilitySettings | None = None,
    ) -> None:
        self._home = home
        self._path = path
        self._parallelism = parallelism
        self._on_progress = on_progress
        self._settings = settings or ObservabilitySettings()
        self._exporter: Exporter | None = None
        self._store: StateStore | None = None
        self._export_failed = False
        self._rates = RateMeter()
        self._written = -1.0
        self._state = ""
        self._checkpoints: dict[int, str] = {}  # what is known of them in the store: their states

    def __call__(self, job: LocalJob) -> None:
        metrics = job.metrics()
        self._export(job)
        if self._on_progress is not None:
            try:
                self._on_progress(self._snapshot(job, metrics))
            except Exception as error:  # a display must not stop a job
                self._on_progress = None
                log.warning("progress is no longer shown: %s", error)
        if self._home is not None and self._is_due(job):
            self._keep(job, metrics)

    def _export(self, job: LocalJob) -> None:
        """Serve the job's numbers to Prometheus while it runs, where that is asked for."""
        port = self._settings.prometheus_port
        if job.ended_at is not None:
            if self._exporter is not None:
                self._exporter.remove(job)
                self._exporter = None
        elif port is not None and self._exporter is None and not self._export_failed:
            from sage.core.runtime.prometheus import exporter

            try:
                self._exporter = exporter(port)
                self._exporter.add(job)
            except OSError as error:
                self._export_failed = True
                log.warning("metrics are not served on port %d: %s", port, error)

    def _snapshot(self, job: LocalJob, metrics: JobMetrics) -> ProgressSnapshot:
        elapsed = job.seconds
        rate, rates = self._rates.add(elapsed, metrics)
        return ProgressSnapshot(
            job.id,
            job.name,
            elapsed,
            metrics.records_in,
            metrics.records_out,
            rate,
            metrics.operators,
            rates,
            metrics.checkpoints,
            metrics.restarts,
        )

    def _is_due(self, job: LocalJob) -> bool:
        now, state = time.monotonic(), str(job.state)
        due = (
            now - self._written >= self._settings.interval - _EARLY or state != self._state or job.ended_at is not None
        )
        if due:
            self._written, self._state = now, state
        return due

    def _keep(self, job: LocalJob, metrics: JobMetrics) -> None:
        try:
            self._write(job, metrics)
        except Exception as error:  # disk full, no permission, a damaged file: the job goes on
            self._home = None
            log.warning("job %s is not recorded: %s", job.id, error)
        if self._store is not None and (job.ended_at is not None or self._home is None):
            self._store.close()

    def _write(self, job: LocalJob, metrics: JobMetrics) -> None:
        from sage.common.store import StateStore

        if self._store is None:
            assert self._home is not None
            self._store = StateStore(self._home.ensure())
        now = time.time()
        operators = [_operator_row(job.id, at, row, now) for at, row in enumerate(metrics.operators)]
        changed = [
            stats for stats in job.checkpoints() if self._checkpoints.get(stats.checkpoint_id) != str(stats.state)
        ]
        rows = [_checkpoint_row(job.id, stats) for stats in changed]
        self._store.record(self._job_row(job, metrics), operators, rows)
        self._checkpoints.update((row.checkpoint_id, row.state) for row in rows)

    def _job_row(self, job: LocalJob, metrics: JobMetrics) -> JobRow:
        from sage.common.store import JobRow

        return JobRow(
            id=job.id,
            name=job.name,
            path=self._path,
            state="running" if job.state == "restarting" else str(job.state),
            pid=os.getpid(),
            started_at=job.started_at,
            ended_at=job.ended_at,
            error=str(job.error) if job.error is not None else "",
            records_in=metrics.records_in,
            records_out=metrics.records_out,
            parallelism=self._parallelism,
        )


def _operator_row(job_id: str, position: int, row: OperatorMetrics, now: float) -> OperatorRow:
    from sage.common.store import OperatorRow

    return OperatorRow(
        job_id=job_id,
        operator=row.operator,
        kind=row.kind,
        records_in=row.records_in,
        records_out=row.records_out,
        errors=row.errors,
        busy_s=row.busy_s,
        queue_depth=row.queue_depth,
        updated_at=now,
        position=position,
        parallelism=row.parallelism,
        idle_s=row.idle_s,
        blocked_s=row.blocked_s,
        watermark=row.watermark,
        state_bytes=row.state_bytes,
        latency_p50=row.latency_p50,
        latency_p99=row.latency_p99,
    )


def _checkpoint_row(job_id: str, stats: CheckpointStats) -> CheckpointRow:
    from sage.common.store import CheckpointRow

    return CheckpointRow(
        job_id=job_id,
        checkpoint_id=stats.checkpoint_id,
        kind=stats.kind,
        state=stats.state,
        triggered_at=stats.triggered_at,
        duration_s=stats.duration,
        aligned_s=stats.aligned,
        sync_s=stats.sync,
        async_s=stats.asynchronous,
        written=stats.written,
        size=stats.size,
        in_flight=stats.in_flight,
        error=stats.error,
    )

"""Writes a job's state and counters into the state store, and hands snapshots to whoever shows progress.

A pipeline never fails because its numbers cannot be kept: the first problem is said once on stderr, then it is quiet.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage.core.runtime.local.job import JobState, LocalJob
from sage.core.runtime.metrics import OperatorMetrics

if TYPE_CHECKING:
    from sage.common.home import SageHome
    from sage.common.store import StateStore

__all__ = ["JobReporter", "ProgressSnapshot"]

log = logging.getLogger("sage.core")


@dataclass(slots=True, frozen=True)
class ProgressSnapshot:
    """A job at a moment; `rate` is records read a second since the last snapshot."""

    job_id: str
    name: str
    elapsed_s: float
    records_in: int
    records_out: int
    rate: float
    operators: list[OperatorMetrics]


class JobReporter:
    """One job's way into `home` (None: nowhere) and to `on_progress`; called from one thread at a time."""

    def __init__(
        self,
        home: SageHome | None,
        *,
        path: str,
        parallelism: int,
        on_progress: Callable[[ProgressSnapshot], None] | None = None,
    ) -> None:
        self._home = home
        self._path = path
        self._parallelism = parallelism
        self._on_progress = on_progress
        self._store: StateStore | None = None
        self._last = (0.0, 0)

    def __call__(self, job: LocalJob) -> None:
        metrics = job.metrics()
        if self._on_progress is not None:
            elapsed = job.seconds
            before, records = self._last
            rate = (metrics.records_in - records) / (elapsed - before) if elapsed > before else 0.0
            self._last = (elapsed, metrics.records_in)
            snapshot = ProgressSnapshot(
                job.id, job.name, elapsed, metrics.records_in, metrics.records_out, rate, metrics.operators
            )
            try:
                self._on_progress(snapshot)
            except Exception as error:  # a display must not stop a job
                self._on_progress = None
                log.warning("progress is no longer shown: %s", error)
        if self._home is not None:
            self._keep(job)

    def _keep(self, job: LocalJob) -> None:
        try:
            self._write(job)
        except Exception as error:  # disk full, no permission, a damaged file: the job goes on
            self._home = None
            log.warning("job %s is not recorded: %s", job.id, error)
        if self._store is not None and (job.ended_at is not None or self._home is None):
            self._store.close()

    def _write(self, job: LocalJob) -> None:
        from sage.common.store import JobRow, OperatorRow, StateStore

        if self._store is None:
            assert self._home is not None
            self._store = StateStore(self._home.ensure())
        metrics, now = job.metrics(), time.time()
        self._store.upsert_job(
            JobRow(
                id=job.id,
                name=job.name,
                path=self._path,
                state=str(JobState.RUNNING if job.state is JobState.RESTARTING else job.state),
                pid=os.getpid(),
                started_at=job.started_at,
                ended_at=job.ended_at,
                error=str(job.error) if job.error is not None else "",
                records_in=metrics.records_in,
                records_out=metrics.records_out,
                parallelism=self._parallelism,
            )
        )
        self._store.record_operator_metrics(
            job.id,
            [
                OperatorRow(
                    job_id=job.id,
                    operator=row.operator,
                    kind=row.kind,
                    records_in=row.records_in,
                    records_out=row.records_out,
                    errors=row.errors,
                    busy_s=row.busy_s,
                    queue_depth=row.queue_depth,
                    updated_at=now,
                )
                for row in metrics.operators
            ],
        )

"""Pipelines from the state store: jobs, their operators, their rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from sage.tui.data.meter import Rates
from sage.tui.data.model import CheckpointView, JobView, OperatorView
from sage.tui.data.system import HISTORY

if TYPE_CHECKING:
    from sage.common.home import SageHome
    from sage.common.store import CheckpointRow, JobRow, OperatorRow, StateStore

__all__ = ["JobReader"]

_RUNNING = frozenset({"created", "running"})
_START_SLACK_S = 5.0
_BELIEVED_S = 10 * 365 * 86400.0  # a watermark further from the clock counts in something else than milliseconds


class JobReader:
    """Reads the newest ``limit`` jobs; remembers their counters between calls. One thread at a time."""

    def __init__(self, home: SageHome, limit: int = 50) -> None:
        self._home = home
        self._limit = limit
        self._store: StateStore | None = None
        self._rates: dict[str, Rates] = {}
        self._busy: dict[tuple[str, str], Rates] = {}
        self._past: dict[str, deque[float]] = {}

    def read(self, now: float, wall: float, *, selected: str | None = None) -> tuple[tuple[JobView, ...], str]:
        """``(jobs, note)``, newest first; the note says why there are none when the store cannot be read.

        Operators come with running jobs, the selected one, and the newest.
        """
        try:
            if not self._home.state_db.exists():
                self.close()
                return (), ""
            rows = self._open().jobs(self._limit)
            newest = rows[0].id if rows else None
            views = []
            for row in rows:
                wanted = row.state in _RUNNING or row.id in (selected, newest)
                operators = self._open().operators(row.id) if wanted else []
                checkpoints = self._open().checkpoints(row.id) if wanted else []
                views.append(self._job(row, operators, _last_checkpoint(checkpoints), now, wall))
        except Exception as error:  # whatever SQLite or a foreign schema raises, the rest of the screen goes on
            self.close()
            return (), f"state.db cannot be read: {error}"
        for gone in self._rates.keys() - {row.id for row in rows}:
            del self._rates[gone]
        return tuple(views), ""

    def _open(self) -> StateStore:
        if self._store is None:
            from sage.common.store import StateStore

            self._store = StateStore(self._home, readonly=True)
        return self._store

    def close(self) -> None:
        """Let go of the database."""
        if self._store is not None:
            with suppress(Exception):
                self._store.close()
            self._store = None

    def _job(
        self,
        row: JobRow,
        operators: list[OperatorRow],
        checkpoint: CheckpointView | None,
        now: float,
        wall: float,
    ) -> JobView:
        live = row.state in _RUNNING
        state = "lost" if live and not _same_process(row.pid, row.started_at) else row.state
        seconds = max(0.0, (row.ended_at or wall) - row.started_at)
        rate: float | None
        if state in _RUNNING:
            rates = self._rates.setdefault(row.id, Rates())
            rates.add(now, (row.records_in, row.records_out))
            rate = rates.per_second(1)
            self._past.setdefault(row.id, deque(maxlen=HISTORY)).append(rate or 0.0)
        else:
            rate = row.records_out / seconds if row.ended_at and seconds > 0 else None
        return JobView(
            id=row.id,
            name=row.name,
            path=row.path,
            state=state,
            pid=row.pid,
            started_at=row.started_at,
            seconds=seconds,
            records_in=row.records_in,
            records_out=row.records_out,
            parallelism=row.parallelism,
            error=row.error,
            rate=rate,
            operators=tuple(self._operator(operator, state, seconds) for operator in operators),
            rate_history=tuple(self._past.get(row.id, ())),
            checkpoint=checkpoint,
        )

    def _operator(self, row: OperatorRow, state: str, seconds: float) -> OperatorView:
        rate: float | None = None
        shares: Sequence[float | None] = (None, None, None)
        if state in _RUNNING:
            rates = self._busy.setdefault((row.job_id, row.operator), Rates())
            records = row.records_out if row.kind == "source" else row.records_in
            rates.add(row.updated_at, (records, row.busy_s, row.idle_s, row.blocked_s))
            rate, *shares = (rates.per_second(number) for number in range(4))
        elif seconds > 0:
            records = row.records_out if row.kind == "source" else row.records_in
            rate, *shares = (value / seconds for value in (records, row.busy_s, row.idle_s, row.blocked_s))
        busy, idle, blocked = (_share(share, row.parallelism) for share in shares)
        lag = row.updated_at - row.watermark / 1000 if row.watermark is not None else None
        return OperatorView(
            name=row.operator,
            kind=row.kind,
            records_in=row.records_in,
            records_out=row.records_out,
            errors=row.errors,
            queue=row.queue_depth,
            rate=rate,
            busy=busy,
            idle=idle,
            blocked=blocked,
            lag_s=lag if lag is not None and abs(lag) < _BELIEVED_S else None,
            state_bytes=row.state_bytes,
            latency_p99=row.latency_p99,
        )


def _share(value: float | None, parallelism: int) -> float | None:
    return None if value is None else min(1.0, value / max(1, parallelism))


def _last_checkpoint(rows: list[CheckpointRow]) -> CheckpointView | None:
    """The newest that is over, with how many of these failed."""
    last = next((row for row in rows if row.state != "in_progress"), None)
    if last is None:
        return None
    return CheckpointView(
        number=last.checkpoint_id,
        state=last.state,
        at=last.triggered_at + last.duration_s,
        seconds=last.duration_s,
        written=last.written,
        size=last.size,
        failed=sum(row.state == "failed" for row in rows),
        error=last.error,
    )


def _same_process(pid: int, started_at: float) -> bool:
    """Whether the process that recorded the job still lives: it must be older than its job."""
    try:
        return psutil.Process(pid).create_time() <= started_at + _START_SLACK_S
    except (psutil.Error, ValueError):
        return False

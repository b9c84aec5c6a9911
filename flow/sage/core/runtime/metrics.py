"""What a job tells about itself: plain numbers, summed over the subtasks of each operator."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sage.core.graph.spec import OperatorKind
from sage.core.runtime.events import FINAL_WATERMARK, NO_WATERMARK

if TYPE_CHECKING:
    from sage.core.checkpoint.coordinator import CheckpointStats
    from sage.core.runtime.stages import ChainOperator
    from sage.core.runtime.task import Task

__all__ = [
    "CheckpointTotals",
    "JobMetrics",
    "OperatorMetrics",
    "TaskNumbers",
    "checkpoint_totals",
    "collect",
    "measure_state",
    "measured",
    "percentile",
    "summed",
]

_REST = 50  # a state's size is looked up again after so many times the time that it took
_LEAST = 0.4  # seconds


@dataclass(slots=True)
class OperatorMetrics:
    """One operator since the start of its job.

    `busy_s` (seconds inside its function) is estimated from samples. `idle_s` and `blocked_s` are its task's: seconds
    without input, and seconds in which receivers were full (back-pressure); operators that are fused share them. All
    three are sums over subtasks. `late`: records that came too late for its windows or join, dropped or put to the
    side. `queue_depth` counts records that wait before its task (only the first operator of a task has any).
    `watermark`: event time in ms, the lowest of the subtasks; None: none yet, or event time has ended. `state_bytes`:
    keyed state, roughly. `latency_p50`, `latency_p99` (seconds, from a source to here): only where the pipeline ends.
    """

    operator: str
    kind: str
    parallelism: int
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    late: int = 0
    busy_s: float = 0.0
    queue_depth: int = 0
    idle_s: float = 0.0
    blocked_s: float = 0.0
    watermark: int | None = None
    state_bytes: int = 0
    latency_p50: float | None = None
    latency_p99: float | None = None


@dataclass(slots=True)
class TaskNumbers:
    """The counters of one subtask: plain data, a row for each of its operators by its number in the graph."""

    records_in: int = 0
    records_out: int = 0
    rows: dict[int, OperatorMetrics] = field(default_factory=dict)
    latencies: dict[int, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class CheckpointTotals:
    """The checkpoints of a job: how many, and the last complete one (seconds, bytes)."""

    completed: int = 0
    failed: int = 0
    last_id: int | None = None
    last_duration_s: float = 0.0
    last_written: int = 0
    last_size: int = 0


@dataclass(slots=True)
class JobMetrics:
    """A job since its start: records read by its sources, records that reached its ends, and each operator."""

    records_in: int
    records_out: int
    operators: list[OperatorMetrics]
    restarts: int = 0
    checkpoints: CheckpointTotals = field(default_factory=CheckpointTotals)


def measured(task: Task) -> TaskNumbers:
    """The counters of a subtask now; called from any thread."""
    idle_s, blocked_s = task.meter.waits()
    numbers = TaskNumbers()
    for position, operator in enumerate(task.chain.operators):
        node = operator.plan.node
        row = numbers.rows[node.index] = OperatorMetrics(node.name, str(node.kind), task.plan.parallelism)
        _count(row, operator, measure=not task.is_closed)
        row.idle_s, row.blocked_s = idle_s, blocked_s
        row.queue_depth = task.input.depth if position == 0 else 0
        if node.kind is OperatorKind.SOURCE:
            numbers.records_in += operator.records_out
        if not operator.plan.children and not operator.plan.outputs:
            numbers.records_out += operator.records_in if node.is_sink else operator.records_out
            numbers.latencies[node.index] = list(task.latencies.copy())
    return numbers


def summed(parts: Iterable[TaskNumbers]) -> JobMetrics:
    """The counters of a job, of those of its subtasks."""
    rows: dict[int, OperatorMetrics] = {}
    waits: dict[int, list[float]] = {}
    records_in = records_out = 0
    for part in parts:
        records_in += part.records_in
        records_out += part.records_out
        for index, row in part.rows.items():
            if index in rows:
                _add(rows[index], row)
            else:
                rows[index] = replace(row)
        for index, latencies in part.latencies.items():
            waits.setdefault(index, []).extend(latencies)
    for index, seconds in waits.items():
        seconds.sort()
        rows[index].latency_p50, rows[index].latency_p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    return JobMetrics(records_in, records_out, [rows[index] for index in sorted(rows)])


def collect(tasks: Iterable[Task]) -> JobMetrics:
    """The state of the counters now; called from any thread."""
    return summed(measured(task) for task in tasks)


def checkpoint_totals(history: Sequence[CheckpointStats]) -> CheckpointTotals:
    """The last complete one among these (oldest first); the counts are left to the caller."""
    totals = CheckpointTotals()
    for stats in history:
        if stats.state == "completed":
            totals.last_id, totals.last_duration_s = stats.checkpoint_id, stats.duration
            totals.last_written, totals.last_size = stats.written, stats.size
    return totals


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values; None of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _count(row: OperatorMetrics, operator: ChainOperator, *, measure: bool) -> None:
    row.records_in = operator.records_in
    row.records_out = operator.records_out
    row.errors, row.late = operator.errors, operator.late
    row.busy_s = operator.busy_s
    if NO_WATERMARK < operator.watermark < FINAL_WATERMARK:
        row.watermark = operator.watermark
    if operator.keyed is not None:
        if measure:
            measure_state(operator)
        row.state_bytes = operator.state_bytes


def _add(row: OperatorMetrics, other: OperatorMetrics) -> None:
    row.records_in += other.records_in
    row.records_out += other.records_out
    row.errors += other.errors
    row.late += other.late
    row.busy_s += other.busy_s
    row.queue_depth += other.queue_depth
    row.idle_s += other.idle_s
    row.blocked_s += other.blocked_s
    row.state_bytes += other.state_bytes
    marks = [mark for mark in (row.watermark, other.watermark) if mark is not None]
    row.watermark = min(marks, default=None)


def measure_state(operator: ChainOperator, *, now: bool = False) -> None:
    """Look up the size of an operator's keyed state, unless that was done a moment ago. From any thread: while its own
    one changes the tables this may fail, and the number of before stands."""
    started = time.monotonic()
    if operator.keyed is None or (started < operator.state_due and not now):
        return
    with suppress(RuntimeError):
        operator.state_bytes = operator.keyed.size
    ended = time.monotonic()
    operator.state_due = ended + max(_LEAST, _REST * (ended - started))

"""What a job tells about itself: plain numbers, summed over the subtasks of each operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sage.core.graph.spec import OperatorKind
from sage.core.runtime.task import Task

__all__ = ["JobMetrics", "OperatorMetrics", "collect"]


@dataclass(slots=True)
class OperatorMetrics:
    """One operator since the start of its job. `busy_s` (seconds inside its function) is estimated from samples;
    `queue_depth` counts records that wait before its task (only the first operator of a task has any)."""

    operator: str
    kind: str
    parallelism: int
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    busy_s: float = 0.0
    queue_depth: int = 0


@dataclass(slots=True)
class JobMetrics:
    """A job since its start: records read by its sources, records that reached its ends, and each operator."""

    records_in: int
    records_out: int
    operators: list[OperatorMetrics]


def collect(tasks: Iterable[Task]) -> JobMetrics:
    """The state of the counters now; called from any thread."""
    rows: dict[int, OperatorMetrics] = {}
    records_in = records_out = 0
    for task in tasks:
        for position, operator in enumerate(task.chain.operators):
            node = operator.plan.node
            row = rows.setdefault(node.index, OperatorMetrics(node.name, str(node.kind), task.plan.parallelism))
            row.records_in += operator.records_in
            row.records_out += operator.records_out
            row.errors += operator.errors
            row.busy_s += operator.busy_s
            row.queue_depth += task.input.depth if position == 0 else 0
            if node.kind is OperatorKind.SOURCE:
                records_in += operator.records_out
            if not operator.plan.children and not operator.plan.outputs:
                records_out += operator.records_in if node.is_sink else operator.records_out
    return JobMetrics(records_in, records_out, [rows[index] for index in sorted(rows)])

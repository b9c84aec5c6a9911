"""Runs a job again from one of its checkpoints, to look at what it does: nothing is written, no service is called.

Sources are read again from their positions, state is that of the checkpoint, services answer from the log of the job.
Sinks write nothing: what would reach them, or what one operator puts out, is shown instead. No checkpoints are made and
those of the job are not touched, so a job can be replayed while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sage.common.errors import UsageError
from sage.core.graph.logical import LogicalNode
from sage.core.graph.plan import PhysicalOperator, PhysicalPlan
from sage.core.graph.spec import FunctionSpec, OperatorKind
from sage.core.runtime.settings import CheckpointMode, FailurePolicy, RestartKind, RuntimeSettings

__all__ = ["START", "Replay", "replay_settings", "replayed"]

START = "start"  # instead of a checkpoint: from the beginning


@dataclass(slots=True)
class Replay:
    """What is wanted: of which job, from which checkpoint (None: from the start), how many records to show, and what
    comes out of which operator (None: what reaches the sinks). `show` gets one line a record."""

    job_id: str
    checkpoint: str | None
    until: int | None = None
    operator: str | None = None
    show: Callable[[str], None] = field(default=lambda line: print(line, flush=True))


class _Shown:
    """Shows the records of all subtasks, up to the number that is wanted; then the job may end."""

    def __init__(self, wanted: Replay, name: str, counter: _Counter) -> None:
        self._show = wanted.show
        self._name = name
        self._counter = counter

    def __call__(self, record: Any) -> None:
        number = self._counter.next()
        if number is not None:
            self._show(f"{number}  {self._name}  {record!r}")

    def __deepcopy__(self, memo: object) -> _Shown:
        return self


class _Counter:
    """Counts what is shown; calls `stop` at the last."""

    def __init__(self, until: int | None) -> None:
        self.stop: Callable[[], None] = lambda: None
        self._until = until
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> int | None:
        """The number of the next record (from 1); None when it is one too many."""
        with self._lock:
            if self._until is not None and self._count >= self._until:
                return None
            self._count += 1
            number = self._count
        if number == self._until:
            self.stop()
        return number


def replayed(plan: PhysicalPlan, wanted: Replay) -> tuple[PhysicalPlan, Callable[[Callable[[], None]], None]]:
    """The plan without its sinks; and what takes the call that ends the job. Raises UsageError for an unknown operator.

    The plan is changed: it belongs to the one job.
    """
    operators = list(plan.operators())
    names = [operator.node.name for operator in operators]
    if wanted.operator is not None and wanted.operator not in names:
        raise UsageError(
            f"The job has no operator {wanted.operator!r}",
            cause=f"it has: {', '.join(names)}",
            hint="sage run --replay",
        )
    counter = _Counter(wanted.until)
    for operator in operators:
        if operator.node.is_sink:
            shown = wanted.operator in (None, operator.node.name)
            operator.node = _silent(operator.node, _Shown(wanted, operator.node.name, counter) if shown else _nothing)
        elif operator.node.name == wanted.operator:
            operator.children.append(_watcher(operator.node, _Shown(wanted, operator.node.name, counter)))

    def stops(stop: Callable[[], None]) -> None:
        counter.stop = stop

    return plan, stops


def replay_settings(settings: RuntimeSettings) -> RuntimeSettings:
    """Of a job that is only looked at: in threads, without checkpoints, restarts and dead letters."""
    return replace(
        settings,
        runtime="threads",
        checkpoint=replace(settings.checkpoint, mode=CheckpointMode.NONE, interval=None),
        restart=replace(settings.restart, kind=RestartKind.NONE),
        on_error=FailurePolicy.SKIP if settings.on_error is not FailurePolicy.FAIL else FailurePolicy.FAIL,
    )


def _silent(node: LogicalNode, function: Callable[[Any], Any]) -> LogicalNode:
    """A sink that only calls `function`."""
    spec = FunctionSpec(function, OperatorKind.SINK, node.origin)
    return replace(node, kind=OperatorKind.SINK, function=spec, factory=None)


def _watcher(node: LogicalNode, function: Callable[[Any], Any]) -> PhysicalOperator:
    """A sink that is fused to the operator."""
    name = f"{node.name}-shown"
    sink = replace(node, name=name, uid=f"{node.uid}-shown", inputs=(), given_uid=None, source=None)
    return PhysicalOperator(_silent(sink, function))


def _nothing(record: Any) -> None:
    """What a sink does in a replay."""

"""The gates between tasks: how many channels lead into each, and what waits in them after a restore."""

from __future__ import annotations

from typing import Protocol

from sage.common.errors import StateError
from sage.core.checkpoint.in_flight import deal
from sage.core.graph.plan import PhysicalEdge, PhysicalPlan, TaskPlan
from sage.core.graph.spec import Partitioning
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Batch, Item
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.output import Receiver
from sage.core.runtime.partition import KeyPartitioner
from sage.core.runtime.settings import CheckpointMode

__all__ = ["GateInput", "Neighbourhood", "first_channel", "make_gates", "senders"]


class Neighbourhood(Protocol):
    """Which subtasks run in this process, and how the others are reached. A subtask: its task's number and its own."""

    def is_here(self, task: int, subtask: int) -> bool:
        """Whether this process runs it."""

    def receiver(self, task: int, subtask: int) -> Receiver:
        """The gate of one that runs elsewhere, as its senders see it."""

    def input(self, gate: InputGate, task: int, subtask: int) -> GateInput:
        """What a subtask of this process reads: its gate, with what its senders elsewhere have to be told."""


def make_gates(
    plan: PhysicalPlan, job: JobContext, near: Neighbourhood | None = None
) -> dict[tuple[int, int], InputGate]:
    """By task and subtask, of those in this process; in each, what was on its way to it when the job was restored."""
    gates: dict[tuple[int, int], InputGate] = {}
    for task in plan.tasks:
        incoming = [edge for edge in plan.edges if edge.target == task.index]
        if incoming:
            ports = [edge.port for edge in incoming for _ in range(senders(plan, edge))]
            settings = job.settings.checkpoint
            for number in _here(task, near):
                gates[task.index, number] = InputGate(
                    ports,
                    job.settings.channel_capacity,
                    job.aborted,
                    exactly_once=settings.mode is not CheckpointMode.AT_LEAST_ONCE,
                    alignment_timeout=settings.alignment_timeout,
                )
            _restore_in_flight(plan, task, gates, job, near)
    return gates


def _restore_in_flight(
    plan: PhysicalPlan,
    task: TaskPlan,
    gates: dict[tuple[int, int], InputGate],
    job: JobContext,
    near: Neighbourhood | None,
) -> None:
    """Give the gates of a task what was on its way to them when the checkpoint was made."""
    parts = job.states.in_flight(task.head.node.uid)
    if not any(parts):
        return
    incoming = [edge for edge in plan.edges if edge.target == task.index]
    waiting = {port for part in parts for port, _ in part}
    copied = {edge.port for edge in incoming if edge.partitioning is Partitioning.BROADCAST}
    if len(parts) != task.parallelism and waiting & copied:
        raise StateError(
            f"{task.name!r} cannot go on with {task.parallelism} subtasks from this checkpoint of {len(parts)}",
            cause="it is an unaligned one, and records were on their way to a broadcast input",
            hint="restore it with the parallelism of before, or take a savepoint to change it",
        )
    keys = {edge.port: edge.key for edge in incoming if edge.key is not None}
    partitioners = {
        port: KeyPartitioner(key.bind(0, 1).call, task.parallelism)
        for port, key in keys.items()
        if task.parallelism > 1
    }
    for number in _here(task, near):

        def share(port: int, batch: Batch, number: int = number) -> Batch | None:
            partitioner = partitioners.get(port)
            return partitioner.split(batch)[number] if partitioner is not None else None

        gates[task.index, number].restore(deal(parts, number, task.parallelism, share))


def _here(task: TaskPlan, near: Neighbourhood | None) -> list[int]:
    return [number for number in range(task.parallelism) if near is None or near.is_here(task.index, number)]


def senders(plan: PhysicalPlan, edge: PhysicalEdge) -> int:
    """How many channels an edge brings to each receiving subtask."""
    return 1 if edge.partitioning is Partitioning.FORWARD else plan.tasks[edge.source].parallelism


def first_channel(plan: PhysicalPlan, edge: PhysicalEdge) -> int:
    """The number of the edge's first channel at its receivers."""
    return sum(senders(plan, e) for e in plan.edges if e.target == edge.target and e.index < edge.index)


class GateInput:
    """A gate as a task's input; batches come as the senders cut them."""

    def __init__(self, gate: InputGate) -> None:
        self._gate = gate

    @property
    def depth(self) -> int:
        return self._gate.depth

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        return self._gate.take(timeout)

    def wake(self) -> None:
        self._gate.wake()

    def close(self) -> None:
        """Senders find out through the job's `aborted` event."""

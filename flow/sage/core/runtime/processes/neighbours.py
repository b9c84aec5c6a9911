"""What a worker knows of the other workers: which subtasks they run and how those are reached."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from sage.core.graph.plan import PhysicalPlan
from sage.core.graph.spec import Partitioning
from sage.core.runtime.channel import InputGate
from sage.core.runtime.local.gates import GateInput, first_channel
from sage.core.runtime.processes.links import CreditInput, Link, RemoteGate
from sage.core.runtime.processes.placement import Subtask

__all__ = ["Neighbours"]


class Neighbours:
    """A `Neighbourhood`. `links` lead to the other workers, by number. Gates are numbered in the order of the plan."""

    def __init__(
        self,
        plan: PhysicalPlan,
        where: Mapping[Subtask, int],
        worker: int,
        links: Mapping[int, Link],
        capacity: int,
        aborted: threading.Event,
    ) -> None:
        self.gates: dict[int, InputGate] = {}  # of this worker, by number
        self._worker = worker
        self._links = links
        self._capacity = capacity
        self._aborted = aborted
        self._where = where
        self._numbers = {subtask: number for number, subtask in enumerate(where)}
        self._senders: dict[Subtask, dict[int, Link]] = {}
        self._receivers: dict[Subtask, RemoteGate] = {}
        for edge in plan.edges:
            first = first_channel(plan, edge)
            for number in range(plan.tasks[edge.source].parallelism):
                if edge.partitioning is Partitioning.FORWARD:
                    self._join((edge.source, number), (edge.target, number), first)
                    continue
                for target in range(plan.tasks[edge.target].parallelism):
                    self._join((edge.source, number), (edge.target, target), first + number)

    def is_here(self, task: int, subtask: int) -> bool:
        """See Neighbourhood."""
        return self._where[task, subtask] == self._worker

    def receiver(self, task: int, subtask: int) -> RemoteGate:
        """See Neighbourhood."""
        return self._receivers[task, subtask]

    def input(self, gate: InputGate, task: int, subtask: int) -> GateInput:
        """See Neighbourhood."""
        number = self._numbers[task, subtask]
        self.gates[number] = gate
        senders = self._senders.get((task, subtask))
        return CreditInput(gate, number, senders, self._capacity) if senders else GateInput(gate)

    def abort(self) -> None:
        """Senders that wait look whether the job was aborted."""
        for receiver in self._receivers.values():
            receiver.wake()

    def _join(self, source: Subtask, target: Subtask, channel: int) -> None:
        here, there = self._where[source], self._where[target]
        if here == there:
            return
        if there == self._worker:
            self._senders.setdefault(target, {})[channel] = self._links[here]
        elif here == self._worker:
            gate = self._receivers.get(target)
            if gate is None:
                link, number = self._links[there], self._numbers[target]
                gate = RemoteGate(number, link, self._capacity, self._aborted)
                self._receivers[target] = link.receivers[number] = gate
            gate.open(channel)

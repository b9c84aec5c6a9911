"""Which worker process runs which subtask.

Tasks that are joined by forward edges go together, subtask by subtask, so that their records stay in one process. Tasks
with fewer subtasks than there are workers (sources, mostly) go where the fewest are. The beginnings and ends of loops
share memory, so they are all in the first worker.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sage.core.graph.plan import PhysicalPlan
from sage.core.graph.spec import Partitioning
from sage.core.runtime.settings import RuntimeSettings

__all__ = ["Subtask", "placed", "worker_count"]

Subtask = tuple[int, int]  # the number of a task in the plan, and of its subtask


def worker_count(plan: PhysicalPlan, settings: RuntimeSettings) -> int:
    """How many worker processes a job has: what the settings say; else one a core, if there are subtasks for them."""
    most = max(task.parallelism for task in plan.tasks)
    return settings.processes or min(len(os.sched_getaffinity(0)), most)


def placed(plan: PhysicalPlan, workers: int) -> Mapping[Subtask, int]:
    """The worker (from 0) of every subtask."""
    group = list(range(len(plan.tasks)))  # the first task of those that go together
    for edge in plan.edges:
        if edge.partitioning is Partitioning.FORWARD:
            old, new = group[edge.target], group[edge.source]
            group = [new if number == old else number for number in group]
    looped = {group[plan.task_of(node).index] for pair in plan.feedback for node in pair}
    load = [0] * workers
    where: dict[Subtask, int] = {}
    for first in sorted(set(group), key=lambda number: (-plan.tasks[number].parallelism, number)):
        members = [task for task in plan.tasks if group[task.index] == first]
        begin = 0 if first in looped else load.index(min(load))
        for task in members:
            for number in range(task.parallelism):
                worker = 0 if first in looped else (begin + number) % workers
                where[task.index, number] = worker
                load[worker] += 1
    return where

"""One attempt at running a job: its tasks on threads, from the start or a restart to the end or a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime.local.checkpoints import JobCheckpoints
from sage.core.runtime.local.threads import TaskThreads
from sage.core.runtime.local.wiring import JobContext, wire

__all__ = ["Attempt"]


class Attempt(TaskThreads):
    """The tasks of one attempt; they are wired, and their state restored, when this is made.

    `on_change` is called, from any thread, when a task has failed or the last one has ended. A checkpoint's target:
    `trigger`, `completed` and `aborted` go to every subtask.
    """

    def __init__(
        self,
        plan: PhysicalPlan,
        context: JobContext,
        checkpoints: JobCheckpoints,
        on_change: Callable[[], None],
        number: int = 0,
    ) -> None:
        self.coordinator = checkpoints.coordinator(plan, self, context.clock, on_change)
        made = replace(
            context,
            stopping=threading.Event(),
            aborted=threading.Event(),
            states=checkpoints.states(context.states),
            checkpoints=checkpoints.access(self.coordinator),
            attempt=number,
        )
        super().__init__(*wire(plan, made), made, on_change)

"""A job on this machine: its threads, its states, how it ends.

    created → running → finished | failed | cancelled

`cancel` stops the sources and lets everything that was read run out; `abort` and a failing task stop all threads where
they stand. One thread a subtask (daemons, so that a hanging function cannot hold the program) and one that watches them
(not a daemon: a script that ends does not cut its jobs short, but one that ends by Ctrl-C cancels them).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from sage.common.errors import PipelineError
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime.local.wiring import JobContext, wire
from sage.core.runtime.metrics import JobMetrics, collect
from sage.core.runtime.task import Task

__all__ = ["JobState", "LocalJob"]

REPORT_EVERY_S = 0.5
ABORT_GRACE_S = 2.0


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    CREATED = "created"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LocalJob:
    """One run of a plan. `on_report` is called about twice a second and at the end, from the watching thread."""

    def __init__(self, plan: PhysicalPlan, context: JobContext, on_report: Callable[[LocalJob], None]) -> None:
        self.id = context.job_id
        self.name = context.name
        self.state = JobState.CREATED
        self.error: PipelineError | None = None
        self.started_at = 0.0
        self.ended_at: float | None = None
        self._context = context
        self._on_report = on_report
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._change = threading.Event()
        self._tasks, self._gates = wire(plan, context)
        self._alive = len(self._tasks)

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.ended_at or time.time()) - self.started_at if self.started_at else 0.0

    def metrics(self) -> JobMetrics:
        """The counters now."""
        return collect(self._tasks)

    def start(self) -> None:
        """Start the job; called once. An interrupt (Ctrl-C) here finds it either not started or wholly started."""
        self.state = JobState.RUNNING
        self.started_at = time.time()
        threading.Thread(target=self._watch, name=f"{self.name}-watch", daemon=False).start()

    def wait(self, timeout: float | None = None) -> bool:
        """True once the job has ended."""
        return self._done.wait(timeout)

    def cancel(self) -> None:
        """Stop reading; what was read runs out."""
        self._context.stopping.set()

    def abort(self) -> None:
        """Stop now. Functions that do not return are left behind."""
        self._context.stopping.set()
        self._context.aborted.set()
        for gate in self._gates:
            gate.abort()
        self._change.set()

    def _run(self, task: Task) -> None:
        failed = task.run()
        with self._lock:
            self._alive -= 1
            if failed is not None and self.error is None:
                self.error = failed
        if failed is not None:
            self.abort()
        if self._alive == 0:
            self._change.set()

    def _start_tasks(self) -> None:
        for number, task in enumerate(self._tasks):
            name = f"{self.name}/{task.plan.name}-{task.subtask}"
            try:
                threading.Thread(target=self._run, args=(task,), name=name, daemon=True).start()
            except RuntimeError as error:  # no more threads
                with self._lock:
                    self._alive -= len(self._tasks) - number
                    self.error = PipelineError(
                        f"The {len(self._tasks)} tasks of {self.name!r} cannot all be started",
                        cause=f"{error} (after {number})",
                        hint="lower the parallelism",
                    )
                self.abort()
                return

    def _watch(self) -> None:
        self._start_tasks()
        while True:
            self._on_report(self)
            if self._change.wait(REPORT_EVERY_S):
                break
            if _script_interrupted():
                self.cancel()
        deadline = time.monotonic() + ABORT_GRACE_S
        while self._alive > 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        self._end()

    def _end(self) -> None:
        self.ended_at = time.time()
        if self.error is not None:
            self.state = JobState.FAILED
        elif self._context.stopping.is_set():
            self.state = JobState.CANCELLED
        else:
            self.state = JobState.FINISHED
        try:
            self._on_report(self)
        finally:
            self._done.set()


def _script_interrupted() -> bool:
    """True once the program only waits for its jobs, because nothing in it caught a Ctrl-C."""
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not threading.main_thread().is_alive()

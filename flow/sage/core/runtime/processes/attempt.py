"""One attempt at running a job in worker processes; the job's master stays in the user's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sage.common.errors import PipelineError
from sage.core.checkpoint.coordinator import Subtask
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime import session
from sage.core.runtime.clock import SystemClock
from sage.core.runtime.events import Barrier
from sage.core.runtime.local.checkpoints import JobCheckpoints
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.metrics import TaskNumbers
from sage.core.runtime.processes.checks import refuse_local_sinks
from sage.core.runtime.processes.messages import (
    Acknowledge,
    Decline,
    Done,
    Ended,
    Failed,
    FromWorker,
    TaskReport,
    Warn,
    Write,
)
from sage.core.runtime.processes.payload import JobPayload
from sage.core.runtime.processes.placement import placed, worker_count
from sage.core.runtime.processes.process import WorkerProcess, start_workers
from sage.core.runtime.task import Task

__all__ = ["ProcessAttempt"]

_GRACE_S = 1.0


class ProcessAttempt:
    """As `Attempt`, with tasks in other processes. The job is pickled when this is made, and raises what that raises.

    What a worker tells is handled in the thread that listens to it; `on_change` is called, from any thread, when
    something has failed or the last worker is done.
    """

    def __init__(
        self,
        plan: PhysicalPlan,
        context: JobContext,
        checkpoints: JobCheckpoints,
        on_change: Callable[[], None],
        number: int = 0,
    ) -> None:
        self.error: PipelineError | None = None
        if type(context.clock) is not SystemClock:
            raise PipelineError(
                f"The job {context.name!r} cannot run in worker processes",
                cause="its clock is moved by hand, and would stand still there",
                hint="run it with execution.runtime: threads",
            )
        refuse_local_sinks(plan)
        self.coordinator = checkpoints.coordinator(plan, self, context.clock, on_change)
        self.context = replace(context, states=checkpoints.states(context.states), attempt=number)
        self.size = sum(task.parallelism for task in plan.tasks)
        self._workers: list[WorkerProcess] = []
        self._count = worker_count(plan, context.settings)
        access = checkpoints.access(self.coordinator)
        self._payload: JobPayload | None = JobPayload(plan, placed(plan, self._count), self.context, access)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._aborted = threading.Event()
        self._stdout = sys.stdout

    @property
    def was_aborted(self) -> bool:
        """Whether tasks were told to stop where they stand."""
        return self._aborted.is_set()

    @property
    def is_over(self) -> bool:
        """All workers are done, or something has failed."""
        if self.error is not None or self._aborted.is_set():
            return True
        return bool(self._workers) and all(worker.is_done for worker in self._workers)

    def start(self) -> None:
        """Start the processes and give them the job."""
        assert self._payload is not None, "called once"
        self._stdout = sys.stdout
        try:
            self._workers = start_workers(self._count)
        except OSError as error:
            self.fail(
                PipelineError(
                    f"The {self._count} worker processes of {self.context.name!r} cannot all be started",
                    cause=error.strerror or str(error),
                    hint="lower execution.processes",
                )
            )
            return
        for worker in self._workers:
            worker.begin(self._payload.of(worker.number), self._heard, self._gone)
        self._payload = None
        if self._aborted.is_set():
            self._tell("abort")

    def running_tasks(self) -> list[tuple[Task, threading.Thread]]:
        """None of them is in this process."""
        return []

    def numbers(self) -> list[TaskNumbers]:
        """The counters of every task, as they were told last."""
        return [report.numbers for report in self._reports()]

    def stop(self) -> None:
        """Sources give nothing more; what was read runs out."""
        self._tell("stop")

    def abort(self) -> None:
        """Stop all tasks where they stand."""
        self._aborted.set()
        self._tell("abort")
        self._on_change()

    def fail(self, error: PipelineError) -> None:
        """The attempt has failed."""
        with self._lock:
            self.error = self.error or error
        self.abort()

    def join(self, seconds: float) -> bool:
        """Wait for the processes to end; those that have not after that time are killed. Always True."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(worker.is_done or worker.is_gone for worker in self._workers):
            time.sleep(0.002)
        for worker in self._workers:
            worker.close(max(deadline, time.monotonic() + _GRACE_S))
        return True

    def trigger(self, barrier: Barrier) -> None:
        """See CheckpointTarget."""
        self._tell("trigger", barrier)

    def completed(self, checkpoint_id: int) -> None:
        """See CheckpointTarget."""
        self._tell("completed", checkpoint_id)

    def aborted(self, checkpoint_id: int) -> None:
        """See CheckpointTarget."""
        self._tell("aborted", checkpoint_id)

    def release(self) -> None:
        """The last checkpoint is complete: let the tasks end."""
        self._tell("release")

    def hanging(self, now: float, limit: float) -> PipelineError | None:
        """See Attempt; a worker that does not even say how it is hangs too."""
        for worker in self._workers:
            for report in worker.reports:
                if report.busy_since is not None and now - report.busy_since > limit:
                    return PipelineError(
                        f"Task {report.name!r} hangs",
                        cause=f"subtask {report.subtask} has been at one call for {now - report.busy_since:.0f} s"
                        f"{report.at}",
                        hint="give what it waits for a timeout, or raise hang.timeout",
                    )
            if worker.reports and not worker.is_done and now - worker.heard_at > limit:
                return PipelineError(
                    f"Worker process {worker.number} (pid {worker.pid}) hangs",
                    cause=f"it has told nothing for {now - worker.heard_at:.0f} s",
                    hint="a function that keeps the interpreter to itself? raise hang.timeout if that is meant",
                )
        return None

    def whereabouts(self, subtasks: Sequence[Subtask] | None = None) -> str:
        """See Attempt."""
        wanted = None if subtasks is None else set(subtasks)
        found = [
            report
            for report in self._reports()
            if (report.running if wanted is None else (report.task, report.subtask) in wanted)
        ]
        told = [f"{report.name!r} (subtask {report.subtask}){report.at}" for report in found[:4]]
        return ", ".join(told) + (f" and {len(found) - 4} more" if len(found) > 4 else "")

    def _reports(self) -> list[TaskReport]:
        return [report for worker in self._workers for report in worker.reports]

    def _tell(self, method: str, argument: Barrier | int | None = None) -> None:
        for worker in self._workers:
            worker.call(method, argument)

    def _heard(self, message: FromWorker) -> None:
        """What a worker says; in the thread that listens to it."""
        match message:
            case Acknowledge():
                self.coordinator.acknowledge(message.snapshot)
            case Decline():
                self.coordinator.decline(message.barrier, message.task, message.subtask, message.reason)
            case Ended():
                self.coordinator.input_ended(message.task, message.subtask)
            case Failed():
                message.error.__cause__ = message.cause
                self.fail(message.error)
            case Write():
                self._write(message)
            case Warn():
                session.warn(message.text)
            case Done():
                self._on_change()

    def _write(self, message: Write) -> None:
        stream = self._stdout if message.stream == "stdout" else sys.stderr
        try:
            stream.write(message.text)
            stream.flush()
        except (OSError, ValueError) as error:
            failed = PipelineError(f"{self.context.name!r} cannot write to {message.stream}", cause=str(error))
            failed.__cause__ = error
            self.fail(failed)

    def _gone(self, worker: WorkerProcess) -> None:
        if not self._aborted.is_set():
            self.fail(worker.death())

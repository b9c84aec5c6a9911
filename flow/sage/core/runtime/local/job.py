"""A job on this machine: its attempts, its states, how it ends.

    created → running ⇄ restarting → finished | failed | cancelled

A task that fails ends the attempt; the restart strategy says whether there is another, which begins with the last
complete checkpoint. `cancel` makes a last checkpoint and stops behind it, where checkpoints are on; else it stops the
sources and lets everything that was read run out. `abort` stops all threads where they stand.

One thread a subtask (daemons, so that a hanging function cannot hold the program) and one that watches them and runs
the checkpoint coordinator (not a daemon: a script that ends does not cut its jobs short, but one that ends by Ctrl-C
cancels them).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sage.common.errors import PipelineError, SageError, StateError
from sage.core.checkpoint.coordinator import CheckpointCoordinator, CheckpointStats
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime import session
from sage.core.runtime.clock import when_moved
from sage.core.runtime.events import CheckpointKind
from sage.core.runtime.failure import told
from sage.core.runtime.local.attempt import Attempt
from sage.core.runtime.local.checkpoints import JobCheckpoints
from sage.core.runtime.local.wiring import JobContext
from sage.core.runtime.metrics import JobMetrics, checkpoint_totals, summed
from sage.core.runtime.restart import restart_strategy
from sage.core.runtime.task import Task

if TYPE_CHECKING:
    from sage.core.runtime.processes.attempt import ProcessAttempt

__all__ = ["JobState", "LocalJob"]

log = logging.getLogger("sage.core")

REPORT_EVERY_S = 0.5
ABORT_GRACE_S = 2.0
_WAIT_S = 0.5


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    CREATED = "created"
    RUNNING = "running"
    RESTARTING = "restarting"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LocalJob:
    """One run of a plan. `on_report` is called about twice a second and at the end, from the watching thread."""

    def __init__(
        self,
        plan: PhysicalPlan,
        context: JobContext,
        on_report: Callable[[LocalJob], None],
        checkpoints: JobCheckpoints,
    ) -> None:
        self.id = context.job_id
        self.name = context.name
        self.state = JobState.CREATED
        self.error: PipelineError | None = None
        self.started_at = 0.0
        self.ended_at: float | None = None
        self.restarts = 0
        self._plan = plan
        self._context = context
        self._on_report = on_report
        self._done = threading.Event()
        self._change = threading.Event()
        when_moved(context.clock, self._change.set)
        self._stopped = threading.Event()  # the user wants the end: no more attempts
        self._cancelled = False
        self._strategy = restart_strategy(context.settings.restart)
        self._next_report = 0.0
        self._checkpoints = checkpoints
        checkpoints.begin(plan)
        try:
            self._attempt = self._new_attempt()
        except BaseException:
            checkpoints.close()
            raise

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.ended_at or time.time()) - self.started_at if self.started_at else 0.0

    def metrics(self) -> JobMetrics:
        """The counters of the attempt that runs now, or ran last."""
        metrics = summed(self._attempt.numbers())
        metrics.restarts = self.restarts
        metrics.checkpoints = checkpoint_totals(self.checkpoints())
        running = self._running_coordinator
        metrics.checkpoints.completed = self._checkpoints.completed + (running.completed if running else 0)
        metrics.checkpoints.failed = self._checkpoints.failed + (running.failed if running else 0)
        return metrics

    def checkpoints(self) -> list[CheckpointStats]:
        """The last checkpoints and savepoints, oldest first."""
        running = self._running_coordinator
        return [*self._checkpoints.history, *(running.history.copy() if running else ())]

    @property
    def _running_coordinator(self) -> CheckpointCoordinator | None:
        """That of the attempt that runs; those that have ended have handed over what they made."""
        coordinator = self._attempt.coordinator
        return None if coordinator is self._checkpoints.last_ended else coordinator

    def running_tasks(self) -> list[tuple[Task, threading.Thread]]:
        """The tasks of this process that have been started, with their threads; for profilers."""
        return self._attempt.running_tasks()

    def operator_numbers(self) -> dict[str, int]:
        """The operators by name, with their numbers in the plan."""
        return {operator.node.name: operator.node.index for operator in self._plan.operators()}

    def start(self) -> None:
        """Start the job; called once. An interrupt (Ctrl-C) here finds it either not started or wholly started."""
        self.state = JobState.RUNNING
        self.started_at = time.time()
        log.debug("%s: job %s starts with %d tasks", self.name, self.id, self._attempt.size)
        threading.Thread(target=self._watch, name=f"{self.name}-watch", daemon=False).start()

    def wait(self, timeout: float | None = None) -> bool:
        """True once the job has ended. In slices: a signal that comes just before a wait is seen when that ends."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is None or (rest := deadline - time.monotonic()) > _WAIT_S:
            if self._done.wait(_WAIT_S):
                return True
        return self._done.wait(max(0.0, rest))

    def cancel(self) -> None:
        """Stop: behind a last checkpoint where they are on, else when what was read has run out."""
        if self._cancelled:
            return
        self._cancelled = True
        self._stopped.set()
        if self._context.settings.checkpoint.enabled:
            answer = self._attempt.coordinator.savepoint(CheckpointKind.STOP_WITH_CHECKPOINT)
            answer.add_done_callback(self._stop_failed)
        else:
            self._attempt.stop()
        self._change.set()

    def abort(self) -> None:
        """Stop now. Functions that do not return are left behind."""
        self._cancelled = True
        self._stopped.set()
        self._attempt.abort()
        self._change.set()

    def savepoint(self, kind: CheckpointKind, path: Path | None = None) -> Future[Path]:
        """Ask for a savepoint, and with STOP_WITH_SAVEPOINT for the end; the answer is its folder.

        Raises StateError when the job has ended or there is no place for it.
        """
        if self.ended_at is not None:
            raise StateError(f"The job {self.name!r} has ended", hint="sage run --restore latest FILE continues it")
        coordinator = self._attempt.coordinator
        self._checkpoints.first_savepoint(coordinator)
        if kind.stops:
            self._stopped.set()
        return coordinator.savepoint(kind, path)

    def _stop_failed(self, answer: Future[Path]) -> None:
        """Without a last checkpoint the job stops where it stands, and the one before remains."""
        error, attempt = answer.exception(), self._attempt
        if error is not None and self.ended_at is None and not (attempt.is_over or attempt.coordinator.is_final):
            session.warn(f"{self.name} stops without a last checkpoint: {error}")
            self.abort()

    def _new_attempt(self) -> Attempt | ProcessAttempt:
        needed = self._plan, self._context, self._checkpoints, self._change.set, self.restarts
        if self._context.settings.runtime == "processes":
            from sage.core.runtime.processes.attempt import ProcessAttempt

            return ProcessAttempt(*needed)
        return Attempt(*needed)

    def _watch(self) -> None:
        try:
            while True:
                error = self._run(self._attempt)
                if error is None or not self._begins_again(error):
                    break
        except Exception as unforeseen:  # whatever it is, nobody waits for this job for ever
            self.error = self.error or _as_failure(self.name, unforeseen)
            self._attempt.abort()
        finally:
            self._end()

    def _run(self, attempt: Attempt | ProcessAttempt) -> PipelineError | None:
        """One attempt, to its end; the error that ended it."""
        attempt.start()
        while not attempt.is_over:
            self._change.clear()
            due = self._step(attempt)
            self._report()
            if not attempt.is_over:
                rest = max(0.0, self._next_report - time.monotonic())
                self._change.wait(rest if due is None else min(due, rest))
            if _script_interrupted():
                self.cancel()
        over = attempt.error or PipelineError(f"The job {self.name!r} has ended")
        attempt.join(ABORT_GRACE_S)
        attempt.coordinator.close(over)
        self._checkpoints.ended(attempt.coordinator)
        return attempt.error

    def _step(self, attempt: Attempt | ProcessAttempt) -> float | None:
        """What the watching thread does now and then; seconds until it must do it again."""
        hang_timeout = self._context.settings.hang_timeout
        try:
            due = attempt.coordinator.step()
            if attempt.coordinator.is_final:
                attempt.release()
            if hang_timeout is not None:
                error = attempt.hanging(time.monotonic(), hang_timeout)
                if error is not None:
                    raise error
                due = hang_timeout / 4 if due is None else min(due, hang_timeout / 4)
        except Exception as error:  # SageErrors, and what a disk or a file system raises beside them
            attempt.fail(error if isinstance(error, PipelineError) else _as_failure(self.name, error))
            return None
        return due

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_EVERY_S
            self._on_report(self)
            if self._context.spans is not None:
                self._context.spans.flush()

    def _begins_again(self, error: PipelineError) -> bool:
        """Whether there is another attempt; it is made then, after the delay of the strategy."""
        delay = None if self._stopped.is_set() else self._strategy.delay_after_failure(self._context.clock.monotonic())
        if delay is None:
            self.error = error
            return False
        self.state = JobState.RESTARTING
        self.restarts += 1
        point = self._checkpoints.point
        start = f"checkpoint {point.manifest.checkpoint_id}" if point is not None else "the beginning"
        session.warn(f"{error}\n  {self.name} starts again from {start} in {delay:.3g} s (restart {self.restarts})")
        self._on_report(self)
        try:
            if self._stopped.wait(delay):
                self.error = error
                return False
            self._wait_for_tasks()
            self._attempt = self._new_attempt()
        except Exception as failed:
            failed.__cause__ = error
            self.error = failed if isinstance(failed, PipelineError) else _as_failure(self.name, failed)
            return False
        self.state = JobState.RUNNING
        return True

    def _wait_for_tasks(self) -> None:
        """No task may run twice: wait for those of the last attempt, but not for ever."""
        deadline = self._context.settings.restart.deadline
        if not self._attempt.join(deadline):
            raise PipelineError(
                f"{self.name!r} cannot start again",
                cause=f"after {deadline:g} s it still waits for {self._attempt.whereabouts()}",
                hint="give what they wait for a timeout, or raise restart.deadline",
            )

    def _end(self) -> None:
        try:
            self._checkpoints.close()
        except OSError as error:
            log.warning("%s: its folder of checkpoints was not let go: %s", self.name, error)
        self.ended_at = time.time()
        if self.error is not None:
            self.state = JobState.FAILED
        elif self._cancelled:
            self.state = JobState.CANCELLED
        else:
            self.state = JobState.FINISHED
        log.debug("%s: %s after %.3f s", self.name, self.state, self.seconds)
        try:
            if self._context.spans is not None:
                self._context.spans.flush()
            self._on_report(self)
        finally:
            self._done.set()


def _as_failure(name: str, error: Exception) -> PipelineError:
    cause, hint = (str(error), error.hint) if isinstance(error, SageError) else (told(error), "")
    failed = PipelineError(f"The job {name!r} failed", cause=cause, hint=hint)
    failed.__cause__ = error
    return failed


def _script_interrupted() -> bool:
    """True once the program only waits for its jobs, because nothing in it caught a Ctrl-C."""
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not threading.main_thread().is_alive()

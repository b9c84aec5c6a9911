"""Tasks on threads of this process: started, told of checkpoints, watched, stopped."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sage.common.errors import PipelineError
from sage.core.checkpoint.coordinator import Subtask
from sage.core.graph.origin import raised_in
from sage.core.runtime.events import Barrier
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.metrics import TaskNumbers, measured
from sage.core.runtime.task import Task

__all__ = ["TaskThreads"]


class Waited(Protocol):
    """Something that tasks wait for: a gate."""

    def abort(self) -> None:
        """Wake them: they look whether the job was aborted."""


class TaskThreads:
    """A thread for each task. `on_change` is called, from any thread, when one has failed or the last one has ended."""

    def __init__(
        self, tasks: list[Task], gates: Sequence[Waited], context: JobContext, on_change: Callable[[], None]
    ) -> None:
        self.error: PipelineError | None = None
        self.context = context
        self.tasks = tasks
        self._gates = gates
        self._on_change = on_change
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        self._running = set(range(len(tasks)))

    @property
    def size(self) -> int:
        """How many tasks there are."""
        return len(self.tasks)

    def numbers(self) -> list[TaskNumbers]:
        """The counters of every task now."""
        return [measured(task) for task in self.tasks]

    def stop(self) -> None:
        """Sources give nothing more; what was read runs out."""
        self.context.stopping.set()

    def is_running(self, number: int) -> bool:
        """Whether that task has not ended."""
        return number in self._running

    @property
    def alive(self) -> int:
        """How many tasks have not ended."""
        return len(self._running)

    @property
    def was_aborted(self) -> bool:
        """Whether tasks were told to stop where they stand."""
        return self.context.aborted.is_set()

    @property
    def is_over(self) -> bool:
        """All tasks have ended, or one has failed."""
        return self.error is not None or not self._running or self.context.aborted.is_set()

    def start(self) -> None:
        """Start a thread for every task."""
        for number, task in enumerate(self.tasks):
            name = f"{self.context.name}/{task.plan.name}-{task.subtask}"
            thread = threading.Thread(target=self._run, args=(number, task), name=name, daemon=True)
            self._threads[number] = thread
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                with self._lock:
                    self._running -= set(range(number, len(self.tasks)))
                    self.error = PipelineError(
                        f"The {len(self.tasks)} tasks of {self.context.name!r} cannot all be started",
                        cause=f"{error} (after {number})",
                        hint="lower the parallelism",
                    )
                self.abort()
                return

    def running_tasks(self) -> list[tuple[Task, threading.Thread]]:
        """Those that have been started."""
        return [(self.tasks[number], thread) for number, thread in list(self._threads.items())]

    def abort(self) -> None:
        """Stop all tasks where they stand."""
        self.context.stopping.set()
        self.context.aborted.set()
        for gate in self._gates:
            gate.abort()
        for task in self.tasks:
            task.mailbox.post(_nothing)
        self._on_change()

    def fail(self, error: PipelineError) -> None:
        """The attempt has failed for a reason that is no task's."""
        with self._lock:
            self.error = self.error or error
        self.abort()

    def join(self, seconds: float) -> bool:
        """Wait for the tasks to end; False when some still run after that time."""
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self._running

    def trigger(self, barrier: Barrier) -> None:
        """See CheckpointTarget."""
        for task in self.tasks:
            task.trigger(barrier)

    def completed(self, checkpoint_id: int) -> None:
        """See CheckpointTarget."""
        for task in self.tasks:
            task.notify_complete(checkpoint_id)

    def aborted(self, checkpoint_id: int) -> None:
        """See CheckpointTarget."""
        for task in self.tasks:
            task.notify_aborted(checkpoint_id)

    def release(self) -> None:
        """The last checkpoint is complete: let the tasks end."""
        for task in self.tasks:
            task.release()

    def hanging(self, now: float, limit: float) -> PipelineError | None:
        """An error for the first task whose function has taken longer than `limit` seconds for what it is at."""
        for number, task in enumerate(self.tasks):
            since = task.busy_since
            if since is not None and now - since > limit:
                return PipelineError(
                    f"Task {task.plan.name!r} hangs",
                    cause=f"subtask {task.subtask} has been at one call for {now - since:.0f} s{self.where(number)}",
                    hint="give what it waits for a timeout, or raise hang.timeout",
                )
        return None

    def whereabouts(self, subtasks: Sequence[Subtask] | None = None) -> str:
        """What these subtasks are at (None: all that still run), for a message about waiting for them."""
        wanted = None if subtasks is None else set(subtasks)
        numbers = [
            number
            for number, task in enumerate(self.tasks)
            if (number in self._running if wanted is None else (task.plan.index, task.subtask) in wanted)
        ]
        told = [f"{self.tasks[n].plan.name!r} (subtask {self.tasks[n].subtask}){self.where(n)}" for n in numbers[:4]]
        more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
        return ", ".join(told) + more

    def where(self, number: int) -> str:
        """The user's line that a task's thread is at."""
        thread = self._threads.get(number)
        frame = sys._current_frames().get(thread.ident or 0) if thread is not None else None
        origin = raised_in(frame) if frame is not None else None
        return f", at {origin}" if origin is not None else ""

    def _run(self, number: int, task: Task) -> None:
        failed = task.run()
        with self._lock:
            self._running.discard(number)
            if failed is not None and self.error is None:
                self.error = failed
        if failed is not None:
            self.abort()
        elif not self._running:
            self._on_change()


def _nothing() -> None:
    """Wakes a task's mailbox."""

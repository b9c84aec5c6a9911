"""A worker process: `python -m sage.core.runtime.processes.worker CONTROL NUMBER [PEER:FD ...]`, started by the master.

It gets its job over the socket CONTROL, runs its subtasks as threads, and does what the master says until that closes
the socket; when the master is gone, so is the worker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import ModuleType

from sage.common.errors import PipelineError, SageError
from sage.core.checkpoint.base import TaskSnapshot
from sage.core.graph.origin import Origin
from sage.core.runtime import session
from sage.core.runtime.checkpointing import CheckpointAccess
from sage.core.runtime.debug_log import show_logs
from sage.core.runtime.events import Barrier
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.local.threads import TaskThreads
from sage.core.runtime.local.wiring import wire
from sage.core.runtime.metrics import measured
from sage.core.runtime.processes.frames import Connection, FrameKind, packed, unpacked
from sage.core.runtime.processes.links import Link
from sage.core.runtime.processes.messages import (
    Acknowledge,
    Call,
    Decline,
    Done,
    Ended,
    Failed,
    FromWorker,
    Report,
    TaskReport,
    Warn,
    Write,
    portable,
)
from sage.core.runtime.processes.neighbours import Neighbours
from sage.core.runtime.processes.output import ForwardedStream
from sage.core.runtime.processes.payload import WorkerJob, load_job
from sage.core.runtime.task import Task
from sage.core.runtime.worker_pool import WorkerPool

__all__ = ["Worker", "main"]

REPORT_EVERY_S = 0.25
SWITCH_S = 0.001  # how long a task may keep the interpreter while another thread has records for the next one
_WRITERS = 4
_PR_SET_PDEATHSIG = 1


class Worker:
    """Runs its share of a job. A CheckpointListener: what tasks say goes to the master's coordinator."""

    def __init__(self, number: int, control: Connection, peers: dict[int, Connection]) -> None:
        self._number = number
        self._control = control
        self._links = {peer: Link(connection, self._failed) for peer, connection in peers.items()}
        self._streams = [
            ForwardedStream(lambda text: self._tell(Write("stdout", text))),
            ForwardedStream(lambda text: self._tell(Write("stderr", text))),
        ]
        self._changed = threading.Event()
        self._tasks: TaskThreads | None = None
        self._neighbours: Neighbours | None = None
        self._told = False
        self._pool = WorkerPool(_WRITERS, f"worker-{number}-checkpoint")

    def run(self) -> None:
        """Until the master closes the connection, or is gone."""
        sys.stdout, sys.stderr = self._streams
        session.current().on_warning = lambda text: self._tell(Warn(text))
        first = self._control.receive()
        if first is None:
            return
        try:
            self._begin(load_job(first.body))
        except BaseException as error:
            self._failed(error)
            self._tell(Done([]))
        while True:
            frame = self._control.receive()
            if frame is None:
                os._exit(1)  # the master is gone: nobody wants what tasks and services still do
            call: Call = unpacked(frame.body, frame.buffers)
            if call.method == "close":
                break
            if self._tasks is not None:
                self._do(self._tasks, call)
        for link in self._links.values():
            link.close()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    def acknowledge(self, snapshot: TaskSnapshot) -> None:
        """See CheckpointListener."""
        self._tell(Acknowledge(snapshot))

    def decline(self, barrier: Barrier, task: int, subtask: int, reason: BaseException) -> None:
        """See CheckpointListener."""
        told = portable(reason, self._number)
        known = told if isinstance(told, SageError) else PipelineError(f"{type(reason).__name__}: {reason}")
        self._tell(Decline(barrier, task, subtask, known))

    def _begin(self, job: WorkerJob) -> None:
        context = JobContext(
            job_id=job.job_id,
            name=job.name,
            settings=job.settings,
            services=job.services,
            stopping=threading.Event(),
            aborted=threading.Event(),
            on_error=job.on_error,
            states=job.states,
            identity=job.identity,
            attempt=job.attempt,
            checkpoints=CheckpointAccess(
                listener=self,
                shared=job.shared,
                run_async=self._pool.submit,
                periodic=job.periodic,
                ended=lambda task, subtask: self._tell(Ended(task, subtask)),
            ),
            spans=job.spans,
        )
        if job.log_level:
            show_logs(job.log_level, Origin.of_caller())
        capacity = job.settings.channel_capacity
        near = self._neighbours = Neighbours(job.plan, job.where, self._number, self._links, capacity, context.aborted)
        tasks, gates = wire(job.plan, context, near)
        self._tasks = TaskThreads(tasks, [*gates, near], context, self._changed.set)
        for peer, link in self._links.items():
            threading.Thread(target=link.run, args=(near.gates,), name=f"from-worker-{peer}", daemon=True).start()
        threading.Thread(target=self._watch, args=(self._tasks,), name="reports", daemon=True).start()
        self._tasks.start()
        if not tasks:
            self._changed.set()

    def _do(self, tasks: TaskThreads, call: Call) -> None:
        """What the master said."""
        argument = call.argument
        if isinstance(argument, Barrier):
            tasks.trigger(argument)
        elif call.method == "completed" and argument is not None:
            tasks.completed(argument)
        elif call.method == "aborted" and argument is not None:
            tasks.aborted(argument)
        else:
            {"release": tasks.release, "stop": tasks.stop, "abort": tasks.abort}[call.method]()

    def _watch(self, tasks: TaskThreads) -> None:
        """Tell the master how things stand, now and then and at the end."""
        try:
            self._report_until_done(tasks)
        except Exception as error:
            self._failed(error)

    def _report_until_done(self, tasks: TaskThreads) -> None:
        while True:
            self._changed.wait(REPORT_EVERY_S)
            self._changed.clear()
            for stream in self._streams:
                stream.flush_lines()
            if tasks.error is not None:
                self._failed(tasks.error)
            if tasks.context.spans is not None:
                tasks.context.spans.flush()
            if not tasks.alive:
                break
            self._tell(Report(self._reports(tasks)))
        self._close_services(tasks)
        for stream in self._streams:
            stream.flush()
        self._tell(Done(self._reports(tasks)))

    def _close_services(self, tasks: TaskThreads) -> None:
        close = getattr(tasks.context.services, "close", None)
        if close is not None:
            try:
                close()
            except SageError as error:
                self._tell(Warn(str(error)))

    def _reports(self, tasks: TaskThreads) -> list[TaskReport]:
        return [_reported(number, task, tasks) for number, task in enumerate(tasks.tasks)]

    def _failed(self, error: BaseException) -> None:
        """Tell the master, once; it then aborts all workers."""
        if self._told:
            return
        self._told = True
        if not isinstance(error, PipelineError):
            failure = PipelineError(
                f"Worker process {self._number} cannot run its part of the job",
                cause=f"{type(error).__name__}: {error}",
                hint=getattr(error, "hint", "") or "modules that functions use must be importable from sys.path",
            )
            failure.__cause__ = error
            error = failure
        cause = error.__cause__
        self._tell(Failed(error, None if cause is None else portable(cause, self._number)))

    def _tell(self, message: FromWorker) -> None:
        with suppress(OSError):  # the master is gone, and with it this process in a moment
            self._control.send(FrameKind.MESSAGE, *packed(message))


def _reported(number: int, task: Task, tasks: TaskThreads) -> TaskReport:
    return TaskReport(
        task.plan.index,
        task.subtask,
        task.plan.name,
        measured(task),
        tasks.is_running(number),
        task.busy_since,
        tasks.where(number),
    )


def main(arguments: list[str]) -> None:
    """Run as a worker; see above."""
    signal.signal(signal.SIGINT, _ignored)  # Ctrl-C is the master's
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    control, number, *peers = arguments
    _die_with_master()
    sys.setswitchinterval(SWITCH_S)
    sys.modules["__main__"] = ModuleType("__main__")  # stands for the script's
    connections = {int(peer): _connection(fd) for peer, _, fd in (text.partition(":") for text in peers)}
    Worker(int(number), _connection(control), connections).run()


def _connection(fd: str) -> Connection:
    end = socket.socket(fileno=int(fd))
    end.set_inheritable(False)
    return Connection(end)


def _ignored(number: int, frame: object) -> None:
    """A handler in place of SIG_IGN, which programs that functions start would inherit."""


def _die_with_master() -> None:
    """Even while a function does not let the interpreter go; where the system can do that (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    from sage.core.runtime.processes import worker

    worker.main(sys.argv[1:])

"""The master's side of a worker process: starts it, talks to it, notices its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from sage.common.errors import PipelineError
from sage.core.runtime.events import Barrier
from sage.core.runtime.processes.frames import Connection, FrameKind, packed, unpacked
from sage.core.runtime.processes.messages import Call, Done, Failed, FromWorker, Report, TaskReport

__all__ = ["WorkerProcess", "start_workers"]

_MODULE = "sage.core.runtime.processes.worker"
_KILLED_S = 5.0


class WorkerProcess:
    """One worker. `on_message` gets what it says, `on_end` is called when it is gone before its time; from a thread."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], control: Connection) -> None:
        self.number = number
        self.reports: list[TaskReport] = []
        self.heard_at = time.monotonic()
        self.is_done = False  # its tasks have ended
        self.is_gone = False
        self._process = process
        self._control = control
        self._closing = False
        self._listener: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def begin(
        self,
        payload: bytes,
        on_message: Callable[[FromWorker], None],
        on_end: Callable[[WorkerProcess], None],
    ) -> None:
        """Send the job; waits until the process has started far enough to read it."""
        self._listener = threading.Thread(
            target=self._listen, args=(on_message, on_end), name=f"worker-{self.number}", daemon=True
        )
        self._listener.start()
        with suppress(OSError):  # told by the thread that listens
            self._control.send(FrameKind.MESSAGE, payload)

    def call(self, method: str, argument: Barrier | int | None = None) -> None:
        """Tell it something; nothing comes of it when the process is gone."""
        with suppress(OSError):
            self._control.send(FrameKind.MESSAGE, *packed(Call(method, argument)))

    def close(self, deadline: float) -> None:
        """Let it end, and kill it when it has not by then (time.monotonic())."""
        self._closing = True
        if self.is_done:
            self.call("close")
        else:
            self._control.close()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_KILLED_S)
        self._control.close()
        if self._listener is not None:
            self._listener.join(_KILLED_S)

    def death(self) -> PipelineError:
        """Why the job fails when the process is gone before its time."""
        try:
            code = self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            code = 0
        cause, hint = f"it ended with exit code {code}", "look at what it wrote to stderr"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            cause = f"it was killed by {name}"
            hint = "a crash in an extension module? PYTHONFAULTHANDLER=1 shows where"
            if name == "SIGKILL":
                hint = "the kernel does that when memory runs out (dmesg tells); fewer execution.processes need less"
        return PipelineError(
            f"Worker process {self.number} (pid {self.pid}) died",
            cause=cause,
            hint=hint,
            details={"worker": self.number, "pid": self.pid, "exit_code": code},
        )

    def _listen(self, on_message: Callable[[FromWorker], None], on_end: Callable[[WorkerProcess], None]) -> None:
        while (frame := self._control.receive()) is not None:
            self.heard_at = time.monotonic()
            try:
                message: FromWorker = unpacked(frame.body, frame.buffers)
            except Exception as error:
                message = Failed(self._unreadable(error), error)
            if isinstance(message, (Report, Done)):
                self.reports = message.tasks
            if isinstance(message, Done):
                self.is_done = True
            on_message(message)
        self.is_gone = True
        if not (self._closing or self.is_done):
            on_end(self)

    def _unreadable(self, error: Exception) -> PipelineError:
        return PipelineError(
            f"What worker process {self.number} says cannot be read", cause=f"{type(error).__name__}: {error}"
        )


def start_workers(count: int) -> list[WorkerProcess]:
    """That many processes, each with a socket pair to this one and to each other. Raises OSError.

    They are spawned, never forked: a copy of this process would have its locks without the threads that hold them.
    """
    peers: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    workers: list[WorkerProcess] = []
    try:
        for number in range(count):
            for later in range(number + 1, count):  # those with workers that have started are there already
                peers[number][later], peers[later][number] = socket.socketpair()
            ours, theirs = socket.socketpair()
            with theirs:
                workers.append(WorkerProcess(number, _spawned(number, theirs, peers[number]), Connection(ours)))
            while peers[number]:
                peers[number].popitem()[1].close()
    except BaseException:
        for worker in workers:
            worker.close(time.monotonic())
        raise
    finally:
        for ends in peers:
            for end in ends.values():
                end.close()
    return workers


def _spawned(number: int, control: socket.socket, peers: Mapping[int, socket.socket]) -> subprocess.Popen[bytes]:
    ends = [f"{peer}:{end.fileno()}" for peer, end in peers.items()]
    command = [sys.executable, "-P", "-m", _MODULE, str(control.fileno()), str(number), *ends]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C ends no worker that starts
    try:
        fds = [control.fileno(), *(end.fileno() for end in peers.values())]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

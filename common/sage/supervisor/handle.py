"""Holding on to a running process: to hear of its end and to signal it, and never a stranger."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable

from sage.common.process import ProcessIdentity

__all__ = ["ProcessHandle"]

_POLL_S = 0.1


class ProcessHandle:
    """A running daemon, our child or an adopted one: tells when it ends, takes signals, never hits a stranger.

    On Linux a pidfd stands for the process, so that a signal cannot reach a later process with the same pid; elsewhere
    the identity is checked before each signal. Use inside a running event loop.
    """

    def __init__(self, identity: ProcessIdentity, child: subprocess.Popen[bytes] | None, on_exit: Callable[[], None]):
        self.identity = identity
        self.ended = asyncio.Event()
        self.exit_code: int | None = None  # negative: the signal that killed it; None: unknown (not our child)
        self._child = child
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._pidfd = _pidfd(identity.pid)
        if self._pidfd is None:
            self._timer = self._loop.call_soon(self._poll)
        elif child is None and not identity.alive():  # it ended before the pidfd was opened
            self._loop.call_soon(self._ended)
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    @property
    def exited(self) -> bool:
        return self.ended.is_set()

    def _poll(self) -> None:
        if self.identity.alive():
            self._timer = self._loop.call_later(_POLL_S, self._poll)
        else:
            self._ended()

    def _ended(self) -> None:
        if not self.exited:
            self.ended.set()
            self._unwatch()
            self._on_exit()

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself; nothing happens when it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.identity.alive():
                os.kill(self.identity.pid, number)

    def close(self) -> None:
        """Let go of it; a child that ended is reaped and its exit code known."""
        self._unwatch()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._child is not None:
            if self.exited:
                self.exit_code = self._child.wait()
            else:
                self._child.returncode = 0  # we leave it running on purpose; keep Popen from warning


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None

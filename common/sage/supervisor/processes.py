"""Processes of daemons: start one, hold on to one, find those that a supervisor left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sage.common import daemon_scan
from sage.common.errors import SageError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.supervisor.spec import DaemonSpec

__all__ = ["ENV_PREFIX", "FoundDaemon", "ProcessHandle", "environment", "find_daemons", "kill_group", "spawn"]

ENV_PREFIX = daemon_scan.NAME_VARIABLE
_POLL_S = 0.1


def environment(spec: DaemonSpec, home: SageHome, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a daemon. It names home and daemon, so that the process can be found again."""
    env = {name: value for name, value in base.items() if not name.startswith(ENV_PREFIX)}
    env.update(spec.env)
    env[daemon_scan.HOME_VARIABLE] = str(home.root)
    env[daemon_scan.NAME_VARIABLE] = spec.name
    env["PYTHONUNBUFFERED"] = "1"
    record = spec.to_dict()
    del record["env"]
    env[daemon_scan.SPEC_VARIABLE] = json.dumps({**record, "env_keys": sorted(spec.env)})
    return env


def spawn(spec: DaemonSpec, home: SageHome, log_fd: int) -> subprocess.Popen[bytes]:
    """Start the daemon in a session of its own. Raises OSError when the command cannot be run."""
    return subprocess.Popen(
        spec.argv,
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        cwd=home.root,
        env=environment(spec, home, os.environ),
        start_new_session=True,
    )


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


class FoundDaemon(NamedTuple):
    identity: ProcessIdentity
    spec: DaemonSpec


def find_daemons(home: SageHome) -> list[FoundDaemon]:
    """The living daemons of this home, told by their environment."""
    found = []
    for identity, record, env in daemon_scan.scan(home):
        try:
            own = {name: env[name] for name in record.get("env_keys", ()) if name in env}
            found.append(FoundDaemon(identity, DaemonSpec.from_dict(record, own)))
        except (TypeError, SageError):  # not written by us
            continue
    return found


def kill_group(pid: int, home: SageHome, name: str) -> int:
    """SIGKILL whatever is left of a daemon's session after its leader `pid`; returns how many processes that were.

    Members are told by their environment, never by the number alone, which may be a stranger's by now.
    """
    killed = 0
    for member, _ in daemon_scan.daemon_environments(home, name):
        with contextlib.suppress(OSError):
            if os.getsid(member) == pid:
                os.kill(member, signal.SIGKILL)
                killed += 1
    return killed

"""Stopping daemons when their supervisor was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

from sage.common.errors import DaemonError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus, read_status
from sage.supervisor import processes, record
from sage.supervisor.lock import take_lock

__all__ = ["stop_without_supervisor"]

_POLL_S = 0.05
_KILLED_S = 10.0


def stop_without_supervisor(home: SageHome, names: Iterable[str] | None = None) -> list[DaemonStatus]:
    """Stop the daemons (all when `names` is None) that a killed supervisor left; returns those that ran.

    Finds them by daemon.json and among the processes, so a damaged file does not hide them. Holds `.sage/lock`
    meanwhile: no supervisor can start beside it. Raises DaemonError when a supervisor runs, or for an unknown name.
    """
    if not home.root.is_dir():
        return []
    lock = take_lock(home, wait_s=3.0)
    if lock is None:
        pid = read_status(home).supervisor_pid
        raise DaemonError("A supervisor is running", cause=f"its pid is {pid}", hint="Ask it:  sage llm stop")
    try:
        return _stop(home, names)
    finally:
        os.ftruncate(lock, 0)
        os.close(lock)


def _stop(home: SageHome, names: Iterable[str] | None) -> list[DaemonStatus]:
    entries, notes = record.load(home)
    living = _living(home, entries)
    wanted = sorted(living) if names is None else list(names)
    unknown = [name for name in wanted if name not in living and name not in entries]
    if unknown:
        known = ", ".join(sorted({*living, *entries})) or "none"
        raise DaemonError(f"There is no daemon {unknown[0]!r}", cause=f"known: {known}", hint="sage llm status")
    stopping = [living[name] for name in wanted if name in living]
    for entry in stopping:
        _signal(entry, signal.SIGTERM)
    for entry in stopping:
        _finish(entry, home)
    for name, entry in entries.items():
        if name not in living:
            entries[name] = _gone(entry)
    for entry in stopping:
        entries[entry.status.name] = _gone(entry)
    if entries or notes:
        record.save(home, None, {**living, **entries}.values(), [])
    if len(stopping) == len(living):
        with contextlib.suppress(OSError):
            home.socket.unlink()
    return [_gone(entry).status for entry in stopping]


def _living(home: SageHome, entries: dict[str, record.Entry]) -> dict[str, record.Entry]:
    living = {name: entry for name, entry in entries.items() if entry.identity is not None and entry.identity.alive()}
    for identity, spec, _ in processes.find_daemons(home):
        log = str(home.logs / f"{spec.name}.log")
        status = DaemonStatus(
            spec.name, spec.kind, "ready", identity.pid, spec.host, spec.port, spec.url, spec.model, log=log
        )
        living.setdefault(spec.name, record.Entry(status, identity, spec))
    return living


def _finish(entry: record.Entry, home: SageHome) -> None:
    """Wait out the grace time, then kill whatever is left of the session."""
    assert entry.identity is not None
    if not _gone_within([entry.identity], entry.spec.stop_grace_s):
        _signal(entry, signal.SIGKILL)
        _gone_within([entry.identity], _KILLED_S)
    _gone_within(processes.kill_group(entry.identity.pid, home, entry.status.name), _KILLED_S)


def _gone_within(identities: list[ProcessIdentity], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(identity.alive() for identity in identities):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _signal(entry: record.Entry, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if entry.identity is not None and entry.identity.alive():
            os.kill(entry.identity.pid, number)


def _gone(entry: record.Entry) -> record.Entry:
    entry.status.state = "stopped"
    entry.status.pid = 0
    return record.Entry(entry.status, None, entry.spec)

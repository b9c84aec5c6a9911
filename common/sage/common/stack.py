"""What runs: the truth about the local stack, for any reader (CLI, dashboard, clients).

The supervisor writes `.sage/llm/daemon.json`; readers check every pid in it by identity, so that they tell the truth
also when the supervisor, a daemon or the whole machine was killed. No supervisor is needed and none is started.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sage.common.home import SageHome
from sage.common.process import ProcessIdentity

__all__ = ["LIVE_STATES", "DaemonStatus", "StackStatus", "read_status"]

LIVE_STATES = frozenset({"starting", "ready", "unhealthy", "stopping"})
"""The states in which a daemon has a process."""
PROBE_TIMEOUT_S = 0.5


@dataclass(slots=True)
class DaemonStatus:
    """One daemon. state: starting, ready, unhealthy, backing-off, crash-loop, stopping, stopped, failed or dead.

    `url` has no /v1; times are seconds since the epoch, None when it has not happened; pid 0: no process.
    """

    name: str
    kind: str
    state: str
    pid: int = 0
    host: str = ""
    port: int = 0
    url: str = ""
    model: str = ""
    restarts: int = 0
    started_at: float | None = None
    ready_at: float | None = None
    log: str = ""
    last_error: str = ""
    exit_code: int | None = None

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self.state in LIVE_STATES

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_record(cls, name: str, record: dict[str, Any]) -> DaemonStatus:
        """From an entry of daemon.json; a field of the wrong type counts as missing."""
        started, ready, code = record.get("started_at"), record.get("ready_at"), record.get("exit_code")
        return cls(
            name=name,
            kind=_text(record, "kind"),
            state=_text(record, "state") or "dead",
            pid=_number(record, "pid"),
            host=_text(record, "host"),
            port=_number(record, "port"),
            url=_text(record, "url"),
            model=_text(record, "model"),
            restarts=_number(record, "restarts"),
            started_at=float(started) if isinstance(started, int | float) else None,
            ready_at=float(ready) if isinstance(ready, int | float) else None,
            log=_text(record, "log"),
            last_error=_text(record, "last_error"),
            exit_code=code if isinstance(code, int) else None,
        )


@dataclass(slots=True)
class StackStatus:
    """The whole local stack. `notes`: what a person should know (a moved port, a damaged file, no supervisor)."""

    supervisor_alive: bool
    supervisor_pid: int | None
    daemons: list[DaemonStatus] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether any daemon has a process."""
        return any(daemon.running for daemon in self.daemons)

    def daemon(self, name: str) -> DaemonStatus | None:
        """The daemon of this name."""
        return next((daemon for daemon in self.daemons if daemon.name == name), None)

    def first(self, kind: str, state: str = "ready") -> DaemonStatus | None:
        """The first daemon of a kind (gateway, llm, embedding) in a state."""
        return next((d for d in self.daemons if d.kind == kind and d.state == state), None)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_status(home: SageHome | None = None) -> StackStatus:
    """What runs now. Never raises for a missing or damaged file.

    With a living supervisor this reads files and /proc only. Without one, each daemon that still lives is asked once
    for its health (at most PROBE_TIMEOUT_S), because nobody has kept its state up to date. Inside a daemon nobody is
    asked: it would wait for its neighbours, or for itself, on its own event loop.
    """
    home = home or SageHome.find()
    record, notes = _load(home)
    supervisor = ProcessIdentity.from_record(record.get("supervisor"))
    if supervisor is None or not supervisor.alive():
        supervisor = _lock_holder(home.lock)
    alive = supervisor is not None
    daemons = [
        _truth(name, entry, alive, ask=not alive and "SAGE_DAEMON" not in os.environ)
        for name, entry in record.get("daemons", {}).items()
    ]
    told = record.get("notes")
    notes += [note for note in told if isinstance(note, str)] if isinstance(told, list) else []
    status = StackStatus(alive, supervisor.pid if supervisor else None, daemons, notes)
    if status.running and not alive:
        notes.append("The supervisor is not running: nobody restarts these daemons. `sage llm serve` starts it again.")
    return status


def _truth(name: str, entry: dict[str, Any], supervised: bool, *, ask: bool) -> DaemonStatus:
    daemon = DaemonStatus.from_record(name, entry)
    identity = ProcessIdentity.from_record(entry)
    if identity is not None and identity.alive():
        if ask:
            daemon.state, daemon.last_error = _ask(daemon, str(entry.get("health_path") or "/health"))
        return daemon
    if supervised and identity is None and daemon.state == "starting":
        return daemon  # its process is just being made
    if daemon.running or (daemon.state == "backing-off" and not supervised):
        daemon.last_error = daemon.last_error or f"process {daemon.pid} is gone"
        daemon.state = "dead"
    daemon.pid = 0
    return daemon


def _ask(daemon: DaemonStatus, path: str) -> tuple[str, str]:
    """(state, reason) of a living daemon by one look at its health."""
    import socket

    address = (daemon.host if daemon.host not in ("", "0.0.0.0") else "127.0.0.1", daemon.port)
    try:
        with socket.create_connection(address, timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\nConnection: close\r\n\r\n".encode())
            words = connection.recv(256).split(None, 2)
    except (OSError, ValueError, OverflowError) as error:  # also for an address that is none
        return "unhealthy", f"no answer from {path}: {error}"
    if words[1:2] == [b"200"]:
        return "ready", ""
    return "unhealthy", f"{path} answers {words[1].decode(errors='replace') if len(words) > 1 else 'nothing'}"


def _load(home: SageHome) -> tuple[dict[str, Any], list[str]]:
    """The content of daemon.json; where it is damaged or lost, what the processes themselves tell."""
    try:
        content = json.loads(home.daemon_json.read_bytes())
        if _sound(content):
            return content, []
        why = "is damaged (it lists no daemons)"
    except (FileNotFoundError, NotADirectoryError):
        if not home.lock.is_file():  # no supervisor was ever here
            return {}, []
        why = "is missing"
    except (OSError, ValueError, RecursionError) as error:
        why = f"is damaged ({error})"
    from sage.common.daemon_scan import scan

    daemons = {f.spec["name"]: {**f.spec, **f.identity._asdict(), "state": "ready"} for f in scan(home)}
    for daemon in daemons.values():
        daemon["url"] = f"http://{daemon.get('host')}:{daemon.get('port')}"
        daemon["log"] = str(home.logs / f"{daemon['name']}.log")
    note = f"{home.daemon_json} {why}; daemons were looked for among the processes instead"
    return {"daemons": daemons}, [note] if daemons or why != "is missing" else []


def _sound(content: object) -> bool:
    daemons = content.get("daemons") if isinstance(content, dict) else None
    return isinstance(daemons, dict) and all(isinstance(entry, dict) for entry in daemons.values())


def _lock_holder(path: Path) -> ProcessIdentity | None:
    """The supervisor that wrote its name into the lock file, if it lives."""
    try:
        identity = ProcessIdentity.from_record(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None
    return identity if identity is not None and identity.alive() else None


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _number(record: dict[str, Any], key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) else 0

"""daemon.json: what the supervisor tells the world, and what its successor needs to take over."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from sage.common.atomic import read_json, set_aside, write_json
from sage.common.errors import SageError, StateError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus
from sage.supervisor.spec import DaemonSpec

__all__ = ["Entry", "load", "save"]

VERSION = 1


class Entry(NamedTuple):
    """One daemon as it is written down. `spec.env` is empty when read back: values of variables are never stored."""

    status: DaemonStatus
    identity: ProcessIdentity | None
    spec: DaemonSpec


def save(home: SageHome, supervisor: dict[str, Any] | None, entries: Iterable[Entry], notes: list[str]) -> None:
    """Replace daemon.json. Raises StateError."""
    entries = list(entries)
    running = [entry.status for entry in entries if entry.status.running or entry.status.state == "backing-off"]
    write_json(
        home.daemon_json,
        {
            "version": VERSION,
            "supervisor": supervisor,
            "daemons": {entry.status.name: _record(entry) for entry in entries},
            "ports": {status.kind: status.port for status in reversed(running)},
            "models": {status.kind: status.model for status in reversed(running) if status.model},
            "notes": notes,
            "updated_at": time.time(),
        },
    )


def _record(entry: Entry) -> dict[str, Any]:
    record = entry.status.to_dict()
    identity = entry.identity
    record["pid"] = identity.pid if identity else 0
    record["start_ticks"] = identity.start_ticks if identity else 0
    record["boot_id"] = identity.boot_id if identity else ""
    record["argv"] = list(entry.spec.argv)
    record["env_keys"] = sorted(entry.spec.env)
    record["health_path"] = entry.spec.health_path
    record["ready_timeout_s"] = entry.spec.ready_timeout_s
    record["stop_grace_s"] = entry.spec.stop_grace_s
    return record


def load(home: SageHome) -> tuple[dict[str, Entry], list[str]]:
    """The daemons of daemon.json by name, and notes. A damaged file is kept aside and said so. Raises StateError when
    not even that is possible."""
    try:
        content = read_json(home.daemon_json)
    except FileNotFoundError:
        return {}, []
    except StateError as error:
        if not home.daemon_json.exists() or "JSON" not in error.cause:
            raise
        return {}, [_damaged(home, error.cause)]
    daemons = content.get("daemons") if isinstance(content, dict) else None
    if not isinstance(daemons, dict):
        return {}, [_damaged(home, "it lists no daemons")]
    if content.get("version") != VERSION:
        return {}, [_damaged(home, f"its version is {content.get('version')!r}, this SAGE writes {VERSION}")]
    entries, notes = {}, []
    for name, record in daemons.items():
        try:
            entries[name] = _entry(name, record)
        except (SageError, AttributeError, TypeError):
            notes.append(f"daemon.json: the entry {name!r} made no sense and was dropped")
    return entries, notes


def _entry(name: str, record: dict[str, Any]) -> Entry:
    return Entry(
        DaemonStatus.from_record(name, record),
        ProcessIdentity.from_record(record),
        DaemonSpec.from_dict({**record, "name": name, "env": {}}),
    )


def _damaged(home: SageHome, why: str) -> str:
    kept = set_aside(home.daemon_json)
    return f"daemon.json was damaged ({why}), kept as {kept.name}; the daemons were found among the processes"

"""The ports of the stack and the state directory."""

from __future__ import annotations

import os
from pathlib import Path

from sage.cli.checks.check import Check, nearest_existing
from sage.common.config.ports import SagePorts, port_holder
from sage.common.home import SageHome
from sage.common.stack import read_status

_DEFAULTS = (
    ("gateway", SagePorts.GATEWAY_DEFAULT, "--gateway-port"),
    ("llm", SagePorts.LLM_DEFAULT, "--port"),
    ("embedding", SagePorts.EMBEDDING_DEFAULT, "--embedding-port"),
)


def ports(home: SageHome) -> list[Check]:
    """Each default port: free, held by our own service, or taken by somebody else (who?)."""
    ours = {daemon.port: daemon.name for daemon in read_status(home).daemons if daemon.pid}
    return [_port(name, port, option, ours) for name, port, option in _DEFAULTS]


def state_directory(home: SageHome) -> Check:
    """Where SAGE keeps its state, and whether it can write there."""
    root = home.root
    place = nearest_existing(root)
    step = "Make it writable, or choose another place:  export SAGE_HOME=/path/to/state"
    if not place.is_dir():
        return Check("state directory", "fail", f"{place} is not a folder", step)
    if not os.access(place, os.W_OK | os.X_OK) or not _can_write(place):
        return Check("state directory", "fail", f"{place} is not writable", step)
    note = "" if place == root else " (made when it is first needed)"
    return Check("state directory", "ok", f"{root}{note}")


def _port(name: str, port: int, option: str, ours: dict[int, str]) -> Check:
    row = f"port {port}"
    why = SagePorts.why_unavailable(port)
    if why is None:
        return Check(row, "ok", f"free ({name})")
    if port in ours:
        return Check(row, "ok", f"in use by SAGE's own {ours[port]}")
    holder = port_holder(port)
    who = f" by pid {holder.pid}: {holder.command}" if holder else ""
    step = f"sage llm serve takes the next free port; to choose one:  sage llm serve {option} PORT"
    return Check(row, "warn", f"{why}{who} ({name})", step)


def _can_write(place: Path) -> bool:
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False

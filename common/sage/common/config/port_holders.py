"""Finding the process behind a listening TCP port: /proc on Linux, psutil elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sage.common.config.ports import PortHolder
from sage.common.process import command_line

__all__ = ["find"]

_LISTEN = "0A"


def find(port: int) -> PortHolder | None:
    """Who listens on `port` on any address; None when nobody does."""
    if not sys.platform.startswith("linux"):
        return _find_psutil(port)
    listeners = _listening_inodes(port)
    if not listeners:
        return None
    for pid in _pids():
        if _holds(pid, listeners):
            return PortHolder(pid, command_line(pid) or "(unknown command)")
    uid = next(iter(listeners.values()))
    return PortHolder(0, f"a process of user {_user(uid)} that you may not see")


def _listening_inodes(port: int) -> dict[str, int]:
    """{socket inode: uid} of the listeners on the port."""
    found: dict[str, int] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found[fields[9]] = int(fields[7])
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are all we need


def _holds(pid: int, inodes: dict[str, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return True
    return False


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _find_psutil(port: int) -> PortHolder | None:
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS asks for root to see others' sockets: look at our own processes
        connections = []
        for process in psutil.process_iter():
            try:
                if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp")):
                    return PortHolder(process.pid, command_line(process.pid))
            except psutil.Error:
                continue
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            pid = connection.pid or 0
            return PortHolder(pid, command_line(pid) if pid else "a process that you may not see")
    return None

"""Who a process is: pid, start time in clock ticks, and the boot it lives in.

A pid alone names nobody: it is given again to a later process, and after a reboot to an unrelated one.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

__all__ = ["ProcessIdentity", "boot_id", "command_line"]

_LINUX = sys.platform.startswith("linux")


class ProcessIdentity(NamedTuple):
    """A process of this machine, for ever distinct from every other one.

    `start_ticks` counts clock ticks since boot on Linux (field 22 of /proc/<pid>/stat), hundredths of a second since
    the epoch elsewhere.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of the process that has this pid now; None when there is none or it is a zombie."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    @classmethod
    def current(cls) -> ProcessIdentity:
        identity = cls.of(os.getpid())
        assert identity is not None  # the process that asks is alive
        return identity

    @classmethod
    def from_record(cls, record: object) -> ProcessIdentity | None:
        """Read back from a mapping with pid, start_ticks and boot_id; None when it holds no identity."""
        if not isinstance(record, dict):
            return None
        pid, ticks, boot = record.get("pid"), record.get("start_ticks"), record.get("boot_id")
        if not (isinstance(pid, int) and pid > 0 and isinstance(ticks, int) and isinstance(boot, str)):
            return None
        return cls(pid, ticks, boot)

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self.boot_id == boot_id() and _start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    """An id of the running boot of this machine."""
    if _LINUX:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return "unknown"
    import psutil

    return f"boot-{int(psutil.boot_time())}"


def _start_ticks(pid: int) -> int | None:
    if pid <= 0:
        return None
    if not _LINUX:
        return _start_ticks_psutil(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()  # the name may hold spaces and brackets
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def _start_ticks_psutil(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time() * 100)
    except psutil.Error:
        return None


def command_line(pid: int) -> str:
    """The command line of a process, words separated by spaces; empty when it cannot be seen."""
    if _LINUX:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().rstrip(b"\0").split(b"\0")
            return b" ".join(words).decode(errors="replace")
        except OSError:
            return ""
    import psutil

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""

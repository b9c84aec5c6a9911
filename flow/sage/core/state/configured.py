"""The stores that a job's settings ask for."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sage.core.runtime.clock import Clock, SystemClock
from sage.core.runtime.settings import StateSettings
from sage.core.state.base import KeyedStateBackend
from sage.core.state.groups import group_range
from sage.core.state.memory import MemoryKeyedState

if TYPE_CHECKING:
    from sage.core.state.rocksdb import RocksSettings

__all__ = ["keyed_backend", "remove_leftovers"]

_FOLDER = re.compile(r"(\d+)-[0-9a-f]{12}")


def keyed_backend(
    settings: StateSettings, folder: Path, subtask: int, parallelism: int, clock: Clock | None = None
) -> KeyedStateBackend:
    """An empty backend for a subtask. Disk backends make a folder of their own in `folder`.

    With `settings.memory` the rows that each backend keeps unpacked, and the block cache of the process, are sized by
    it: 4 GiB give a million rows in each of the two generations (some 250 MB of small ones), and 256 MiB.
    Raises StateError when the backend that is asked for is not installed.
    """
    groups = group_range(subtask, parallelism)
    clock = clock or SystemClock()
    if settings.backend == "memory":
        return MemoryKeyedState(*groups, clock)
    from sage.core.state.rocksdb import RocksKeyedState

    own = folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    return RocksKeyedState(*groups, folder=own, clock=clock, settings=_rocks(settings))


def remove_leftovers(folder: Path) -> None:
    """Remove the folders of processes that were killed; those of a process in another container are locked."""
    for path in folder.glob("*-*"):
        match = _FOLDER.fullmatch(path.name)
        if match is not None and not _alive(int(match[1])) and not _locked(path / "db" / "LOCK"):
            shutil.rmtree(path, ignore_errors=True)


def _rocks(settings: StateSettings) -> RocksSettings:
    from sage.core.state.rocksdb import RocksSettings

    if settings.memory is None:
        return RocksSettings(incremental=settings.incremental)
    return RocksSettings(
        cached_rows=max(1 << 14, min(settings.memory >> 12, 1 << 20)),
        block_cache=max(8 << 20, min(settings.memory >> 4, 512 << 20)),
        incremental=settings.incremental,
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _locked(path: Path) -> bool:
    """Whether another process holds RocksDB's lock."""
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False

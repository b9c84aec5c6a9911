"""The stores that a job's settings ask for."""

from __future__ import annotations

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
    """Remove the folders of processes that were killed."""
    for path in folder.glob("*-*"):
        match = _FOLDER.fullmatch(path.name)
        if match is not None and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _rocks(settings: StateSettings) -> RocksSettings:
    from sage.core.state.rocksdb import RocksSettings

    cache = RocksSettings().block_cache
    if settings.memory is not None:
        cache = max(8 << 20, min(cache, settings.memory // 8))
    return RocksSettings(block_cache=cache, incremental=settings.incremental)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

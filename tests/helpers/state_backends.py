"""The keyed backends under test, by name, and requests for snapshots."""

import itertools
import pathlib
from collections.abc import Callable

from sage.core.runtime.clock import Clock
from sage.core.state.base import KeyedStateBackend, SnapshotRequest, StateSnapshot
from sage.core.state.groups import group_range
from sage.core.state.memory import MemoryKeyedState
from sage.core.state.rocksdb import RocksKeyedState, RocksSettings

Make = Callable[[pathlib.Path, int, int, Clock], KeyedStateBackend]
SMALL = RocksSettings(dirty_rows=4, cached_rows=8, slice_rows=2)  # so that little data goes every way
BACKENDS: dict[str, Make] = {
    "memory": lambda folder, first, last, clock: MemoryKeyedState(first, last, clock),
    "rocksdb": lambda folder, first, last, clock: RocksKeyedState(
        first, last, folder=folder, clock=clock, settings=SMALL
    ),
}


class HandClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self._now = 1_000_000

    def now_ms(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._now / 1000

    def advance(self, milliseconds: int) -> None:
        """Move on."""
        self._now += milliseconds


class Store:
    """Backends of the subtasks of one operator, and their checkpoints, in one folder."""

    def __init__(self, kind: str, folder: pathlib.Path) -> None:
        self.make = BACKENDS[kind]
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True, exist_ok=True)
        self.clock = HandClock()
        self._ids = itertools.count(1)
        self._open: list[KeyedStateBackend] = []

    def open(self, subtask: int = 0, parallelism: int = 1) -> KeyedStateBackend:
        """A new backend for a subtask."""
        folder = self.folder / f"local-{next(self._ids)}"
        backend = self.make(folder, *group_range(subtask, parallelism), self.clock)
        self._open.append(backend)
        return backend

    def request(self, previous: StateSnapshot | None = None, *, savepoint: bool = False) -> SnapshotRequest:
        """A request with a folder of its own."""
        number = next(self._ids)
        folder = self.folder / f"chk-{number}"
        folder.mkdir()
        return SnapshotRequest(number, folder, self.shared, previous, savepoint)

    def snapshot(
        self, backend: KeyedStateBackend, previous: StateSnapshot | None = None, *, savepoint: bool = False
    ) -> tuple[pathlib.Path, StateSnapshot]:
        """Both parts of a snapshot at once."""
        request = self.request(previous, savepoint=savepoint)
        return request.folder, backend.snapshot(request)()

    def close(self) -> None:
        """Close all backends; once more does no harm."""
        while self._open:
            self._open.pop().close()

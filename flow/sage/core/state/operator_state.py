"""State of a subtask that belongs to no key: lists of values. After Flink's OperatorStateBackend."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage.common.errors import StateError
from sage.core.state.base import SnapshotRequest, StateSnapshot
from sage.core.state.group_file import GroupFileReader, GroupFileWriter
from sage.core.state.serialization import dump_many, load_many

__all__ = ["MODES", "OperatorState"]

MODES = ("list", "union", "broadcast")
_FILE = "operator.state"
_NO_GROUP = 0


class OperatorState:
    """Lists by name; small enough to be written at the barrier."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}
        self._modes: dict[str, str] = {}

    def get(self, name: str, mode: str = "list") -> list[Any]:
        """See OperatorStateBackend; a copy: changes count once they are put. Raises StateError for another mode."""
        self._declare(name, mode)
        return copy.copy(self._values.get(name, []))

    def put(self, name: str, values: list[Any], mode: str = "list") -> None:
        """See OperatorStateBackend. The values must not be changed in place afterwards, only put again."""
        self._declare(name, mode)
        self._values[name] = list(values)

    def snapshot(self, request: SnapshotRequest) -> Callable[[], StateSnapshot]:
        """See OperatorStateBackend."""
        parts = [(f"{self._modes[name]}:{name}", dump_many(values)) for name, values in self._values.items()]

        def write() -> StateSnapshot:
            if not parts:
                return StateSnapshot("operator", (0, -1))
            with GroupFileWriter(request.folder / _FILE) as file:
                for name, block in parts:
                    file.add(name, _NO_GROUP, block)
            return StateSnapshot("operator", (0, -1), files=[_FILE], written=file.written, size=file.written)

        return write

    def restore(self, snapshots: list[tuple[Path, StateSnapshot]], subtask: int, parallelism: int) -> None:
        """See OperatorStateBackend. With the parallelism unchanged each subtask gets back its own lists."""
        per_snapshot = [self._read(folder, snapshot) for folder, snapshot in snapshots]
        names = dict.fromkeys(name for values in per_snapshot for name in values)
        for name in names:
            lists = [values[name] for values in per_snapshot if name in values]
            everything = [value for values in lists for value in values]
            if self._modes[name] == "union":
                self._values[name] = everything
            elif self._modes[name] == "broadcast":
                self._values[name] = lists[0]
            elif len(snapshots) == parallelism:
                self._values[name] = per_snapshot[subtask].get(name, [])
            else:
                total = len(everything)
                self._values[name] = everything[subtask * total // parallelism : (subtask + 1) * total // parallelism]

    def _read(self, folder: Path, snapshot: StateSnapshot) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for file in snapshot.files:
            for label, _group, block in GroupFileReader(folder / file).blocks((_NO_GROUP,)):
                mode, _, name = label.partition(":")
                self._declare(name, mode)
                found[name] = load_many(block)
        return found

    def _declare(self, name: str, mode: str) -> None:
        if mode not in MODES:
            raise StateError(f"{mode!r} is no kind of operator state", hint=f"one of {', '.join(MODES)}")
        known = self._modes.setdefault(name, mode)
        if known != mode:
            raise StateError(f"Operator state {name!r} is a {known} state", cause=f"asked for as a {mode} state")

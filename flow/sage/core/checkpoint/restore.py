"""Fills the state stores of a job from a checkpoint, whatever the parallelism was then."""

from __future__ import annotations

from collections.abc import Iterable

from sage.common.errors import StateError
from sage.core.checkpoint.in_flight import read_in_flight
from sage.core.checkpoint.job_folder import RestorePoint
from sage.core.runtime.events import Batch
from sage.core.runtime.states import OperatorStates, StateProvider
from sage.core.state.base import StateSnapshot

__all__ = ["RestoredStates", "check_operators"]


class RestoredStates:
    """A StateProvider whose stores hold what the checkpoint has for their operator."""

    def __init__(self, inner: StateProvider, point: RestorePoint) -> None:
        self._inner = inner
        self._point = point

    def open(self, operator_id: str, subtask: int, parallelism: int, *, keyed: bool) -> OperatorStates:
        """See StateProvider. Raises StateError for files that are torn or do not fit the operator."""
        stores = self._inner.open(operator_id, subtask, parallelism, keyed=keyed)
        entry = self._point.manifest.operators.get(operator_id)
        if entry is None:
            return stores
        folders = [self._point.folder.part(operator_id, number) for number in range(len(entry.subtasks))]
        parts = list(zip(folders, entry.subtasks, strict=True))
        kept = [(folder, part.keyed) for folder, part in parts if part.keyed is not None and part.keyed.files]
        if stores.keyed is not None:
            stores.keyed.restore(kept)
        elif kept:
            raise StateError(
                f"{entry.name!r} has keyed state in {self._point.folder.path}, and has no key now",
                hint="bring key_by(...) back, or give the operator another uid to start it empty",
            )
        stores.operator.restore(
            [(folder, part.operator) for folder, part in parts if part.operator is not None], subtask, parallelism
        )
        return stores

    def in_flight(self, operator_id: str) -> list[list[tuple[int, Batch]]]:
        """See StateProvider."""
        entry = self._point.manifest.operators.get(operator_id)
        parts: list[list[tuple[int, Batch]]] = [[] for _ in entry.subtasks] if entry is not None else []
        for kept in self._point.manifest.in_flight:
            if kept.operator_id == operator_id:
                path = self._point.folder.part(operator_id, kept.subtask) / kept.file
                parts[kept.subtask] = read_in_flight(path)
        return parts

    def finished(self, operator_id: str) -> bool:
        """Whether the operator had come to the end of its input in all its subtasks."""
        entry = self._point.manifest.operators.get(operator_id)
        return entry is not None and all(part.finished for part in entry.subtasks)


def check_operators(point: RestorePoint, operator_ids: Iterable[str], *, drop: bool = False) -> list[str]:
    """The names of operators that the checkpoint has state of and the job does not have (any more).

    Raises StateError where there are any, unless their state may be dropped (Flink's `--allowNonRestoredState`).
    """
    known = set(operator_ids)
    waiting = {kept.operator_id for kept in point.manifest.in_flight}
    gone = []
    for operator_id, entry in point.manifest.operators.items():
        holds = any(_holds(part.keyed) or _holds(part.operator) for part in entry.subtasks)
        if operator_id not in known and (holds or operator_id in waiting):
            gone.append(entry.name)
    if gone and not drop:
        raise StateError(
            f"The checkpoint {point.folder.path} has state of {gone[0]!r}, which this job does not have",
            cause="its operators, their names or their order have changed, so their ids are others",
            hint="give operators with state a uid= that stays; --allow-non-restored-state drops what is left over"
            f" (here of {', '.join(map(repr, gone))})",
            details={"operator": gone[0], "path": str(point.folder.path)},
        )
    return gone


def _holds(state: StateSnapshot | None) -> bool:
    return state is not None and bool(state.files)

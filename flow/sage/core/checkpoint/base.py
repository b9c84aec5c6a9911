"""The plain data of checkpoints, and what tasks say to their coordinator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sage.core.runtime.events import Barrier
from sage.core.state.base import StateSnapshot

__all__ = ["CheckpointListener", "OperatorSnapshot", "TaskSnapshot"]


@dataclass(slots=True)
class OperatorSnapshot:
    """One operator in one subtask: its keyed and operator state (a sink keeps there what it has to commit)."""

    operator_id: str
    keyed: StateSnapshot | None = None
    operator: StateSnapshot | None = None


@dataclass(slots=True)
class TaskSnapshot:
    """A subtask's whole answer to a barrier. Durations in seconds.

    `in_flight`: of unaligned ones, (operator id, subtask, file, records) of what was on its way to the subtask.
    """

    checkpoint_id: int
    task: int
    subtask: int
    operators: list[OperatorSnapshot]
    finished: bool = False  # the subtask has come to the end of its input
    aligned_s: float = 0.0
    sync_s: float = 0.0
    async_s: float = 0.0
    in_flight: list[tuple[str, int, str, int]] = field(default_factory=list)


class CheckpointListener(Protocol):
    """What a task tells the coordinator; callable from any thread, returns at once."""

    def acknowledge(self, snapshot: TaskSnapshot) -> None:
        """The subtask's part is written."""

    def decline(self, barrier: Barrier, task: int, subtask: int, reason: BaseException) -> None:
        """The subtask cannot make its part: this checkpoint is aborted, the job goes on."""

"""A subtask's part in checkpoints: the snapshot of its operators, written in another thread, and what comes before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sage.core.checkpoint.base import CheckpointListener, OperatorSnapshot, TaskSnapshot
from sage.core.checkpoint.storage import CheckpointFolder
from sage.core.runtime.events import Barrier
from sage.core.runtime.stages import ChainOperator
from sage.core.state.base import SnapshotRequest, StateSnapshot

__all__ = ["CheckpointAccess", "InputPosition", "SubtaskCheckpoints"]

_Write = Callable[[], StateSnapshot]


class InputPosition(Protocol):
    """The input of a source task, as far as checkpoints go."""

    def snapshot(self, checkpoint_id: int) -> None:
        """Put into the source's state where to go on after the last record that was taken."""

    def notify_complete(self, checkpoint_id: int) -> None:
        """That checkpoint is complete."""


@dataclass(slots=True, frozen=True)
class CheckpointAccess:
    """What the subtasks of one attempt share. `periodic`: a last checkpoint follows when the input has ended.

    `run_async` runs a call in another thread.
    """

    listener: CheckpointListener
    shared: Path
    run_async: Callable[[Callable[[], None]], object]
    periodic: bool
    ended: Callable[[int, int], None]


@dataclass(slots=True)
class _Part:
    operator_id: str
    keyed: _Write | None
    operator: _Write | None


class SubtaskCheckpoints:
    """Of one subtask; called in its thread, except for what `run_async` runs."""

    def __init__(
        self,
        task: int,
        subtask: int,
        operators: list[ChainOperator],
        access: CheckpointAccess,
        position: InputPosition | None,
    ) -> None:
        self.access = access
        self._task, self._subtask = task, subtask
        self._operators = operators
        self._position = position
        self._begun = -1
        self._made: dict[int, dict[str, OperatorSnapshot]] = {}
        self._previous: dict[str, OperatorSnapshot] = {}

    def begins(self, barrier: Barrier) -> bool:
        """Whether this subtask has its part still to make (a barrier may come through the input, and by call)."""
        if barrier.checkpoint_id <= self._begun:
            return False
        self._begun = barrier.checkpoint_id
        return True

    def snapshot(
        self, barrier: Barrier, *, finished: bool = False, aligned: float = 0.0, in_flight: list[Any] | None = None
    ) -> None:
        """The synchronous part now, the rest in another thread, which then tells the coordinator.

        Raises what an operator raises that cannot give its state; a state store that cannot be written only makes the
        checkpoint fail.
        """
        started = time.monotonic()
        if self._position is not None:
            self._position.snapshot(barrier.checkpoint_id)
        for operator in self._operators:
            if operator.operator is not None:
                operator.operator.snapshot(barrier.checkpoint_id)
        try:
            parts = [self._part(operator, barrier) for operator in self._operators]
        except Exception as error:  # full disk, no permission
            self.access.listener.decline(barrier, self._task, self._subtask, error)
            return
        answer = TaskSnapshot(
            barrier.checkpoint_id,
            self._task,
            self._subtask,
            [],
            finished=finished,
            aligned_s=aligned,
            sync_s=time.monotonic() - started,
            in_flight=in_flight or [],
        )
        self.access.run_async(lambda: self._write(barrier, parts, answer))

    def completed(self, checkpoint_id: int) -> None:
        """Later snapshots may refer to what this one holds."""
        made = self._made.get(checkpoint_id)
        self._made = {number: kept for number, kept in self._made.items() if number > checkpoint_id}
        if made is not None:
            self._previous = made
        if self._position is not None:
            self._position.notify_complete(checkpoint_id)

    def _part(self, operator: ChainOperator, barrier: Barrier) -> _Part:
        place = CheckpointFolder(barrier.checkpoint_id, Path(barrier.path), self.access.shared)
        operator_id = operator.plan.node.uid
        folder = place.make_part(operator_id, self._subtask)
        before = self._previous.get(operator_id)
        is_savepoint = barrier.kind.is_savepoint

        def request(previous: StateSnapshot | None) -> SnapshotRequest:
            kept = None if is_savepoint else previous
            return SnapshotRequest(barrier.checkpoint_id, folder, place.shared, kept, is_savepoint)

        keyed, state = operator.keyed, operator.operator_state
        return _Part(
            operator_id,
            keyed.snapshot(request(before.keyed if before else None)) if keyed is not None else None,
            state.snapshot(request(before.operator if before else None)) if state is not None else None,
        )

    def _write(self, barrier: Barrier, parts: list[_Part], answer: TaskSnapshot) -> None:
        started = time.monotonic()
        try:
            for part in parts:
                answer.operators.append(
                    OperatorSnapshot(
                        part.operator_id,
                        keyed=part.keyed() if part.keyed is not None else None,
                        operator=part.operator() if part.operator is not None else None,
                    )
                )
        except BaseException as error:
            self.access.listener.decline(barrier, self._task, self._subtask, error)
            return
        answer.async_s = time.monotonic() - started
        if not barrier.kind.is_savepoint:
            self._made[barrier.checkpoint_id] = {made.operator_id: made for made in answer.operators}
        self.access.listener.acknowledge(answer)

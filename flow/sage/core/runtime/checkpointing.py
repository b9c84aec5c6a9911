"""A subtask's part in checkpoints: the snapshot of its operators, written in another thread, and what comes before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sage.core.checkpoint.base import CheckpointListener, OperatorSnapshot, TaskSnapshot
from sage.core.checkpoint.in_flight import IN_FLIGHT, InFlight, write_in_flight
from sage.core.checkpoint.storage import CheckpointFolder
from sage.core.runtime.events import Barrier
from sage.core.runtime.positions import keep_position
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


class CapturingGate(Protocol):
    """The gate of a task that is no source, as far as checkpoints go: see InputGate."""

    @property
    def alignment_s(self) -> float: ...
    def when_captured(self, checkpoint_id: int, told: Callable[[InFlight], None]) -> bool: ...
    def checkpoint_aborted(self, checkpoint_id: int) -> None: ...


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
        gate: CapturingGate | None = None,
    ) -> None:
        self.access = access
        self._task, self._subtask = task, subtask
        self._operators = operators
        self._position = position
        self._gate = gate
        self._begun = -1
        self._made: dict[int, dict[str, OperatorSnapshot]] = {}
        self._previous: dict[str, OperatorSnapshot] = {}

    def begins(self, barrier: Barrier) -> bool:
        """Whether this subtask has its part still to make (a barrier may come through the input, and by call)."""
        if barrier.checkpoint_id <= self._begun:
            return False
        self._begun = barrier.checkpoint_id
        return True

    def snapshot(self, barrier: Barrier, *, finished: bool = False) -> None:
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
            if operator.origin is not None and operator.operator_state is not None:
                keep_position(operator.operator_state, operator.origin)
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
            aligned_s=self._gate.alignment_s if self._gate is not None and not finished else 0.0,
            sync_s=time.monotonic() - started,
        )

        def captured(records: InFlight) -> None:
            self.access.run_async(lambda: self._write(barrier, parts, answer, records))

        gate = self._gate if barrier.unaligned or getattr(self._gate, "captures", False) else None
        if gate is None or not gate.when_captured(barrier.checkpoint_id, captured):
            captured([])

    def aborted(self, checkpoint_id: int) -> None:
        """Nobody waits for that checkpoint any more."""
        if self._gate is not None:
            self._gate.checkpoint_aborted(checkpoint_id)

    def completed(self, checkpoint_id: int) -> None:
        """Later snapshots may refer to what this one holds."""
        made = self._made.get(checkpoint_id)
        for number in [number for number in list(self._made) if number <= checkpoint_id]:
            del self._made[number]  # in place: another thread may be adding a later one
        if made is not None:
            self._previous = made
        if self._position is not None:
            self._position.notify_complete(checkpoint_id)

    def _write_in_flight(self, barrier: Barrier, overtaken: InFlight) -> tuple[str, int, str, int]:
        """The file of the records that the barrier overtook; it lies with the task's first operator."""
        head = self._operators[0].plan.node.uid
        folder = CheckpointFolder(barrier.checkpoint_id, Path(barrier.path), self.access.shared)
        write_in_flight(folder.make_part(head, self._subtask) / IN_FLIGHT, overtaken)
        return head, self._subtask, IN_FLIGHT, sum(len(batch.records) for _, batch in overtaken)

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

    def _write(self, barrier: Barrier, parts: list[_Part], answer: TaskSnapshot, overtaken: InFlight) -> None:
        started = time.monotonic()
        try:
            if overtaken:
                answer.in_flight.append(self._write_in_flight(barrier, overtaken))
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

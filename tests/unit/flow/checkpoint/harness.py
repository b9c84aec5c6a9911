"""A clock moved by hand, and an attempt of a job that answers as the test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sage.core.checkpoint.base import OperatorSnapshot, TaskSnapshot
from sage.core.checkpoint.coordinator import CheckpointCoordinator, Subtask
from sage.core.checkpoint.storage import CheckpointFolder, CheckpointStorage
from sage.core.runtime.events import Barrier
from sage.core.runtime.settings import CheckpointMode, CheckpointSettings
from sage.core.state.base import StateSnapshot


@dataclass
class ManualClock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)


@dataclass
class Target:
    triggered: list[Barrier] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)
    abandoned: list[int] = field(default_factory=list)

    def trigger(self, barrier: Barrier) -> None:
        self.triggered.append(barrier)

    def completed(self, checkpoint_id: int) -> None:
        self.complete.append(checkpoint_id)

    def aborted(self, checkpoint_id: int) -> None:
        self.abandoned.append(checkpoint_id)

    def whereabouts(self, subtasks: Sequence[Subtask]) -> str:
        return ", ".join(f"{task}.{subtask}" for task, subtask in subtasks)


SUBTASKS: set[Subtask] = {(0, 0), (1, 0), (1, 1)}


class World:
    """A coordinator with its clock, target and storage."""

    def __init__(self, root: Path, **settings: object) -> None:
        values: dict[str, object] = {"mode": CheckpointMode.EXACTLY_ONCE, "interval": 10.0, "timeout": 60.0}
        self.settings = CheckpointSettings(**(values | settings))  # type: ignore[arg-type]
        self.clock = ManualClock()
        self.target = Target()
        self.storage = CheckpointStorage(root, retained=self.settings.retained)
        self.storage.prepare()
        self.woken = 0
        self.coordinator = CheckpointCoordinator(
            self.settings,
            self.storage,
            self.clock,
            self.target,
            job="job-1",
            name="job",
            subtasks=set(SUBTASKS),
            names={"a": "source", "b": "count"},
            next_id=1,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    def after(self, seconds: float) -> float | None:
        self.clock.now += seconds
        return self.coordinator.step()

    def acknowledge(self, checkpoint_id: int, subtask: Subtask, *, finished: bool = False) -> None:
        barrier = next(b for b in self.target.triggered if b.checkpoint_id == checkpoint_id)
        folder = CheckpointFolder(checkpoint_id, Path(barrier.path), self.storage.shared)
        self.coordinator.acknowledge(snapshot(checkpoint_id, subtask, folder, finished=finished))

    def acknowledge_all(self, checkpoint_id: int, *, finished: bool = False) -> None:
        for subtask in sorted(SUBTASKS):
            self.acknowledge(checkpoint_id, subtask, finished=finished)


def snapshot(checkpoint_id: int, subtask: Subtask, folder: CheckpointFolder, *, finished: bool = False) -> TaskSnapshot:
    """A subtask's part with one small file."""
    operator = "ab"[subtask[0]]
    place = folder.make_part(operator, subtask[1])
    (place / "state").write_bytes(b"x" * 10)
    state = StateSnapshot("memory", (0, 127), ["state"], written=10, size=10)
    parts = [OperatorSnapshot(operator, keyed=state)]
    return TaskSnapshot(checkpoint_id, subtask[0], subtask[1], parts, finished=finished, sync_s=0.01)

"""The checkpoints of a job over all its attempts: its folder, where the next attempt begins, what was made so far."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from sage.common.errors import StateError
from sage.core.checkpoint.coordinator import CheckpointCoordinator, CheckpointStats, CheckpointTarget
from sage.core.checkpoint.job_folder import JobFolder, RestorePoint
from sage.core.checkpoint.restore import RestoredStates, check_operators
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime.checkpointing import CheckpointAccess
from sage.core.runtime.clock import Clock
from sage.core.runtime.settings import CheckpointSettings
from sage.core.runtime.states import StateProvider
from sage.core.runtime.worker_pool import WorkerPool

__all__ = ["JobCheckpoints"]

WRITERS = 4


class JobCheckpoints:
    """`root` is the folder of the job's identity; it is touched only when a checkpoint is made or restored.

    `restore` is what the user wants to continue from: latest, an id or a path; None: begin anew. `drop_state`: state of
    operators that are gone is dropped. `read_only`: the folder is not taken and nothing is written there.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        root: Path,
        identity: str,
        name: str,
        restore: str | None = None,
        *,
        drop_state: bool = False,
        read_only: bool = False,
    ) -> None:
        self.identity = identity
        self.folder = JobFolder(root, retained=settings.retained)
        self.history: list[CheckpointStats] = []
        self.completed = self.failed = 0  # of the attempts that have ended
        self.last_ended: CheckpointCoordinator | None = None
        self.started_from: RestorePoint | None = None
        self.found_nothing = False  # `latest` was wanted, and there is none
        self.dropped: list[str] = []  # operators that are gone, and whose state with them
        self.left_behind: int | None = None  # a checkpoint of an earlier run that did not come to its end
        self._settings = settings
        self._name = name
        self._restore = restore
        self._drop_state = drop_state
        self._read_only = read_only
        self._point: RestorePoint | None = None
        self._opened = self._closed = False
        self._next_id = 1
        self._lock = threading.Lock()
        self._pool = WorkerPool(WRITERS, f"{name}-checkpoint")

    def begin(self, plan: PhysicalPlan) -> None:
        """Find what to continue from. Raises StateError when that cannot be done."""
        if self._restore is None and not self._settings.enabled:
            return
        if self._read_only:
            self._find(plan)
            return
        self.folder.acquire()
        try:
            if self._restore is None:
                self.left_behind = self.folder.unfinished
            self._find(plan)
            self._next_id = self.folder.begin_run(self._point)
            self._opened = True
        except BaseException:
            self.folder.release()
            raise

    def _find(self, plan: PhysicalPlan) -> None:
        """What the user wants to continue from. Raises StateError where there is no such checkpoint of this job."""
        if self._restore is not None:
            self._point = self.started_from = self.folder.resolve(self._restore)
            self.found_nothing = self._point is None
        if self._point is not None:
            known = (operator.node.uid for operator in plan.operators())
            self.dropped = check_operators(self._point, known, drop=self._drop_state)

    def first_savepoint(self, coordinator: CheckpointCoordinator) -> None:
        """A job without periodic checkpoints makes a savepoint: take the folder now. Raises StateError."""
        with self._lock:
            if self._closed:
                raise StateError(f"The job {self._name!r} has ended")
            if not self._opened:
                self.folder.acquire()
                try:
                    coordinator.next_id = self._next_id = self.folder.begin_run(None)
                except BaseException:
                    self.folder.release()
                    raise
                self._opened = True

    @property
    def point(self) -> RestorePoint | None:
        """What the next attempt begins with."""
        return self._point

    def states(self, fresh: StateProvider) -> StateProvider:
        """The stores of the next attempt."""
        return RestoredStates(fresh, self._point) if self._point is not None else fresh

    def access(self, coordinator: CheckpointCoordinator) -> CheckpointAccess:
        """What the subtasks of an attempt need."""
        return CheckpointAccess(
            listener=coordinator,
            shared=self.folder.storage.shared,
            run_async=self._pool.submit,
            periodic=self._settings.enabled,
            ended=coordinator.input_ended,
        )

    def coordinator(
        self, plan: PhysicalPlan, target: CheckpointTarget, clock: Clock, wake: Callable[[], None]
    ) -> CheckpointCoordinator:
        """The coordinator of the next attempt."""
        started = self.started_from
        keep = frozenset({started.manifest.checkpoint_id}) if started is not None else frozenset[int]()
        return CheckpointCoordinator(
            self._settings,
            self.folder.storage,
            clock,
            target,
            job=self.identity,
            name=self._name,
            subtasks={(task.index, number) for task in plan.tasks for number in range(task.parallelism)},
            names={operator.node.uid: operator.node.name for operator in plan.operators()},
            next_id=self._next_id,
            wake=wake,
            keep=keep,
        )

    def ended(self, coordinator: CheckpointCoordinator) -> None:
        """An attempt has ended; the next one begins with its last complete checkpoint."""
        self.history.extend(coordinator.history)
        self.completed += coordinator.completed
        self.failed += coordinator.failed
        self.last_ended = coordinator
        self._next_id = coordinator.next_id
        manifest = coordinator.last_completed
        if manifest is not None:
            # Also where somebody has removed it meanwhile: then restoring says so, and does not begin before it.
            self._point = RestorePoint(self.folder.storage.checkpoint(manifest.checkpoint_id), manifest)

    def close(self) -> None:
        """The job has ended: nobody takes the folder for it any more."""
        self._pool.close()
        with self._lock:
            self._closed = True
            self.folder.release()

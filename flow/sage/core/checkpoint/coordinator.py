"""The checkpoint coordinator: when checkpoints begin, when they are complete, what becomes of those that fail.

A state machine without threads (after Flink's CheckpointCoordinator). Tasks and users put events in from any thread;
the job's own thread calls `step()`, which does everything that follows from them and says when it wants to be called
again. At most one checkpoint is under way; what is asked for meanwhile waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Protocol

from sage.common.errors import PipelineError, SageError, StateError
from sage.core.checkpoint.base import TaskSnapshot
from sage.core.checkpoint.manifest import Manifest, manifest_of
from sage.core.checkpoint.storage import CheckpointFolder, CheckpointStorage
from sage.core.runtime.clock import Clock
from sage.core.runtime.events import Barrier, CheckpointKind
from sage.core.runtime.settings import CheckpointSettings

__all__ = ["CheckpointCoordinator", "CheckpointStats", "CheckpointTarget", "Subtask"]

log = logging.getLogger("sage.core")

Subtask = tuple[int, int]  # the number of a task in the plan, and of its subtask
HISTORY = 100
RETRY_AFTER = 0.5  # seconds until the last checkpoint of a job is tried again


class CheckpointTarget(Protocol):
    """The running attempt of a job, as the coordinator sees it. All calls return at once."""

    def trigger(self, barrier: Barrier) -> None:
        """Begin the checkpoint in every subtask."""

    def completed(self, checkpoint_id: int) -> None:
        """Tell every subtask that it is complete. Savepoints on the way commit nothing (Flink's FLIP-203): a recovery
        goes back to the checkpoint before, and would write it again."""

    def aborted(self, checkpoint_id: int) -> None:
        """Tell every subtask that it will not be completed."""

    def whereabouts(self, subtasks: Sequence[Subtask]) -> str:
        """What these subtasks are at, for a message."""


@dataclass(slots=True)
class CheckpointStats:
    """One checkpoint as `JobHandle.checkpoints()` tells it. `state`: in_progress, completed or failed.

    Durations in seconds: from trigger to completion, and the longest of a subtask's waiting for barriers, its
    synchronous and its asynchronous part. `written` and `size` in bytes.
    """

    checkpoint_id: int
    kind: str
    state: str
    triggered_at: float
    path: str
    duration: float = 0.0
    aligned: float = 0.0
    sync: float = 0.0
    asynchronous: float = 0.0
    written: int = 0
    size: int = 0
    in_flight: int = 0
    error: str = ""


@dataclass(slots=True)
class _Request:
    kind: CheckpointKind
    path: Path | None
    answer: Future[Path]


@dataclass(slots=True)
class _Pending:
    barrier: Barrier
    folder: CheckpointFolder
    started: float
    missing: set[Subtask]
    stats: CheckpointStats
    request: _Request | None
    parts: list[TaskSnapshot] = field(default_factory=list)


class CheckpointCoordinator:
    """Of one attempt of a job. `names`: operator id → name; `wake`: makes the job's thread call `step()` soon."""

    def __init__(
        self,
        settings: CheckpointSettings,
        storage: CheckpointStorage,
        clock: Clock,
        target: CheckpointTarget,
        *,
        job: str,
        name: str,
        subtasks: set[Subtask],
        names: Mapping[str, str],
        next_id: int,
        wake: Callable[[], None],
        keep: frozenset[int] = frozenset(),
    ) -> None:
        self.history: deque[CheckpointStats] = deque(maxlen=HISTORY)
        self.completed = self.failed = 0  # of all, also those that have left the history
        self.next_id = next_id
        self.last_completed: Manifest | None = None
        self._settings = settings
        self._storage = storage
        self._clock = clock
        self._target = target
        self._job, self._name, self._names = job, name, dict(names)
        self._subtasks = subtasks
        self._wake = wake
        self._keep = keep
        self._inbox: deque[Callable[[], None]] = deque()
        self._requests: deque[_Request] = deque()
        self._ended: set[Subtask] = set()
        self._pending: _Pending | None = None
        self._failures = 0
        self._retry_at = -inf
        self._due = clock.monotonic() + settings.interval if settings.interval is not None else None
        self._is_final = False
        self._stopped = False

    # What tasks and users say, from any thread.

    def acknowledge(self, snapshot: TaskSnapshot) -> None:
        """A subtask's part is written."""
        self._post(lambda: self._acknowledged(snapshot))

    def decline(self, barrier: Barrier, task: int, subtask: int, reason: BaseException) -> None:
        """A subtask cannot make its part."""
        self._post(lambda: self._declined(barrier.checkpoint_id, task, subtask, reason))

    def input_ended(self, task: int, subtask: int) -> None:
        """A subtask has processed all its input; it waits for the last checkpoint."""
        self._post(lambda: self._ended.add((task, subtask)))

    def savepoint(self, kind: CheckpointKind, path: Path | None = None) -> Future[Path]:
        """Ask for a savepoint, or for a checkpoint now; the answer is its folder."""
        request = _Request(kind, path, Future())
        self._post(lambda: self._requests.append(request))
        if self._stopped:
            self._refuse(request)
        return request.answer

    # The job's thread.

    def step(self) -> float | None:
        """Do what is due. Returns the seconds until the next time something is, None: only when woken.

        Raises PipelineError when too many checkpoints failed in a row.
        """
        while self._inbox:
            self._inbox.popleft()()
        now = self._clock.monotonic()
        if self._pending is not None and now - self._pending.started >= self._settings.timeout:
            self._fail(self._pending, self._late(self._pending))
        if self._failures > self._settings.tolerable_failures:
            raise self._too_many()
        if self._pending is None:
            self._begin_next(now)
        return self._next_time(self._clock.monotonic())

    @property
    def is_final(self) -> bool:
        """True once a checkpoint is complete that every subtask gave after the end of its input, or that stopped the
        job: nothing is left to do."""
        return self._is_final

    @property
    def waits_for(self) -> list[Subtask]:
        """The subtasks that the checkpoint under way has nothing from yet."""
        return sorted(self._pending.missing) if self._pending is not None else []

    def close(self, reason: SageError) -> None:
        """The attempt has ended: what is under way or asked for fails with this reason."""
        self._stopped = True
        while self._inbox:
            self._inbox.popleft()()
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._record_failure(pending, reason)
            self._storage.discard(pending.folder)
        while self._requests:
            with suppress(InvalidStateError):
                self._requests.popleft().answer.set_exception(reason)

    def _refuse(self, request: _Request) -> None:
        with suppress(InvalidStateError):  # it was answered meanwhile
            request.answer.set_exception(_over(self._name))

    def _post(self, event: Callable[[], None]) -> None:
        self._inbox.append(event)
        self._wake()

    def _begin_next(self, now: float) -> None:
        if self._is_final or (self._ended and not self._settings.enabled):
            while self._requests:
                self._refuse(self._requests.popleft())
            return
        if self._requests:
            request = self._requests.popleft()
            self._begin(request.kind, now, request)
        elif now >= self._next_periodic:
            self._begin(CheckpointKind.CHECKPOINT, now, None)

    @property
    def _next_periodic(self) -> float:
        """When the next checkpoint is to begin by itself: the last one at once, but with a pause after a failure."""
        if self._due is None:
            return inf
        return min(self._due, self._retry_at) if self._ended >= self._subtasks else self._due

    def _begin(self, kind: CheckpointKind, now: float, request: _Request | None) -> None:
        checkpoint_id, self.next_id = self.next_id, self.next_id + 1
        if self._settings.interval is not None:
            self._due = now + self._settings.interval
        triggered = self._clock.now_ms() / 1000.0
        path = request.path if request is not None else None
        stats = CheckpointStats(checkpoint_id, str(kind), "in_progress", triggered, str(path or ""))
        self.history.append(stats)
        try:
            folder = self._storage.begin(checkpoint_id, savepoint=kind.is_savepoint, path=path)
        except StateError as error:
            self._begin_failed(stats, request, error)
            return
        stats.path = str(folder.path)
        at_once = self._settings.alignment_timeout == 0.0 and kind is CheckpointKind.CHECKPOINT
        barrier = Barrier(checkpoint_id, kind, triggered, unaligned=at_once, path=str(folder.path))
        self._pending = _Pending(barrier, folder, now, set(self._subtasks), stats, request)
        self._target.trigger(barrier)

    def _begin_failed(self, stats: CheckpointStats, request: _Request | None, error: StateError) -> None:
        self.failed += 1
        stats.state, stats.error = "failed", str(error)
        if request is not None:
            request.answer.set_exception(error)
        else:
            self._count_failure(stats)

    def _acknowledged(self, snapshot: TaskSnapshot) -> None:
        pending, subtask = self._pending, (snapshot.task, snapshot.subtask)
        if pending is None or snapshot.checkpoint_id != pending.barrier.checkpoint_id:
            return  # of one that was aborted
        if subtask not in pending.missing:
            return
        pending.missing.remove(subtask)
        pending.parts.append(snapshot)
        stats = pending.stats
        stats.aligned = max(stats.aligned, snapshot.aligned_s)
        stats.sync = max(stats.sync, snapshot.sync_s)
        stats.asynchronous = max(stats.asynchronous, snapshot.async_s)
        if not pending.missing:
            self._complete(pending)

    def _declined(self, checkpoint_id: int, task: int, subtask: int, reason: BaseException) -> None:
        pending = self._pending
        if pending is not None and checkpoint_id == pending.barrier.checkpoint_id:
            error = reason if isinstance(reason, SageError) else _failed(checkpoint_id, task, subtask, reason)
            self._fail(pending, error)

    def _complete(self, pending: _Pending) -> None:
        manifest = manifest_of(
            self._job,
            self._name,
            str(pending.barrier.kind),
            pending.parts,
            self._names,
            checkpoint_id=pending.barrier.checkpoint_id,
            triggered_at=pending.barrier.triggered_at,
            completed_at=self._clock.now_ms() / 1000.0,
        )
        try:
            self._storage.complete(pending.folder, manifest)
            if pending.barrier.kind is CheckpointKind.STOP_WITH_SAVEPOINT:
                self._storage.note_stop(pending.folder.path)
        except StateError as error:
            self._fail(pending, error)
            return
        self._pending = None
        self._failures = 0
        stats, now = pending.stats, self._clock.monotonic()
        stats.state, stats.duration = "completed", now - pending.started
        self.completed += 1
        log.debug(
            "%s: checkpoint %d complete after %.3f s, %d bytes written",
            *(self._name, stats.checkpoint_id, stats.duration, manifest.written),
        )
        stats.written, stats.size, stats.in_flight = manifest.written, manifest.size, len(manifest.in_flight)
        self._is_final = pending.barrier.kind.stops or all(part.finished for part in pending.parts)
        if self._due is not None:
            self._due = max(self._due, now + self._settings.min_pause)
        if pending.barrier.kind is not CheckpointKind.SAVEPOINT:
            self.last_completed = manifest
            self._target.completed(manifest.checkpoint_id)
        if pending.request is not None:
            pending.request.answer.set_result(pending.folder.path)
        self._storage.prune(self._keep)

    def _fail(self, pending: _Pending, error: SageError) -> None:
        self._pending = None
        self._record_failure(pending, error)
        self._target.aborted(pending.barrier.checkpoint_id)
        self._storage.discard(pending.folder)
        if self._due is not None:
            self._due = max(self._due, self._clock.monotonic() + self._settings.min_pause)
        if pending.request is None:
            self._count_failure(pending.stats)

    def _record_failure(self, pending: _Pending, error: SageError) -> None:
        self.failed += 1
        pending.stats.state, pending.stats.error = "failed", str(error)
        pending.stats.duration = self._clock.monotonic() - pending.started
        if pending.request is not None:
            pending.request.answer.set_exception(error)

    def _count_failure(self, stats: CheckpointStats) -> None:
        self._failures += 1
        self._retry_at = self._clock.monotonic() + RETRY_AFTER
        log.warning("checkpoint %d of %s failed: %s", stats.checkpoint_id, self._name, stats.error)

    def _next_time(self, now: float) -> float | None:
        """Seconds until a timeout or the next periodic checkpoint."""
        if self._is_final:
            return None
        if self._pending is not None:
            return max(0.0, self._pending.started + self._settings.timeout - now)
        return max(0.0, self._next_periodic - now) if self._due is not None else None

    def _late(self, pending: _Pending) -> StateError:
        return StateError(
            f"Checkpoint {pending.barrier.checkpoint_id} took longer than {self._settings.timeout:g} s",
            cause=f"{len(pending.missing)} of {len(self._subtasks)} subtasks did not finish their part: "
            + self._target.whereabouts(sorted(pending.missing)),
            hint="raise checkpoint.timeout, or look at what these do",
        )

    def _too_many(self) -> PipelineError:
        last = next((stats.error for stats in reversed(self.history) if stats.error), "")
        return PipelineError(
            f"{self._failures} checkpoints of {self._name!r} failed in a row",
            cause=last,
            hint="raise checkpoint.tolerable_failures if the job should go on without them",
        )


def _failed(checkpoint_id: int, task: int, subtask: int, reason: BaseException) -> StateError:
    error = StateError(
        f"Checkpoint {checkpoint_id} failed in subtask {task}.{subtask}", cause=f"{type(reason).__name__}: {reason}"
    )
    error.__cause__ = reason
    return error


def _over(name: str) -> PipelineError:
    return PipelineError(f"The job {name!r} has ended, or a part of it", cause="a savepoint needs all of it to run")

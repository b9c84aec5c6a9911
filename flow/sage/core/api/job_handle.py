"""What `submit()` returns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sage.common.errors import PipelineError
from sage.core.runtime.events import CheckpointKind

if TYPE_CHECKING:
    from sage.core.checkpoint.coordinator import CheckpointStats
    from sage.core.runtime.local.job import JobState, LocalJob
    from sage.core.runtime.metrics import JobMetrics

__all__ = ["JobHandle"]


class JobHandle:
    """A job that was submitted."""

    __slots__ = ("_job",)

    def __init__(self, job: LocalJob) -> None:
        self._job = job

    @property
    def job_id(self) -> str:
        return self._job.id

    @property
    def name(self) -> str:
        return self._job.name

    def status(self) -> JobState:
        """created, running, restarting, finished, failed or cancelled (a `str` enum)."""
        return self._job.state

    def metrics(self) -> JobMetrics:
        """The counters now; they stay after the job has ended."""
        return self._job.metrics()

    def wait(self, timeout: float | None = None) -> JobState:
        """Wait until everything is out, and return how it ended.

        Raises PipelineError when the job failed, TimeoutError when it still runs after `timeout` seconds.
        """
        if not self._job.wait(timeout):
            raise TimeoutError(f"job {self.name!r} still runs after {timeout:g} s")
        if self._job.error is not None:
            raise self._job.error
        return self._job.state

    def cancel(self) -> None:
        """Stop: with checkpoints behind a last one, from which the job can go on; without, when the records that were
        read are processed. Returns at once: `wait()` for the end."""
        self._job.cancel()

    def abort(self) -> None:
        """Stop now; records in flight are lost."""
        self._job.abort()

    def savepoint(self, path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> str:
        """Make a savepoint now and return its folder: `path`, a new or empty one, or one beside the job's checkpoints.

        A savepoint is complete in itself and never removed by the engine; the job goes on. Raises StateError when it
        cannot be made, TimeoutError after `timeout` seconds.
        """
        return self._savepoint(CheckpointKind.SAVEPOINT, path, timeout)

    def stop_with_savepoint(self, path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> str:
        """Stop reading, make a savepoint of all that was read, commit it, end the job; returns the savepoint's folder.

        Windows and timers do not fire: whoever restores from it goes on as if nothing had happened (Flink's
        stop-with-savepoint without drain). Raises as `savepoint`; the job then goes on.
        """
        made = self._savepoint(CheckpointKind.STOP_WITH_SAVEPOINT, path, timeout)
        self.wait(timeout)
        return made

    def checkpoints(self) -> list[CheckpointStats]:
        """The last checkpoints and savepoints of this job, oldest first: times, bytes, and why one failed."""
        return self._job.checkpoints()

    @property
    def restarts(self) -> int:
        """How often the job has started again after a failure."""
        return self._job.restarts

    def _savepoint(self, kind: CheckpointKind, path: str | os.PathLike[str] | None, timeout: float | None) -> str:
        place = None if path is None else Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - keep symlinks
        return str(self._job.savepoint(kind, place).result(timeout))

    @property
    def error(self) -> PipelineError | None:
        """What made the job fail."""
        return self._job.error

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return self._job.seconds

    def __repr__(self) -> str:
        return f"<JobHandle {self.name} {self.job_id} {self.status()}>"

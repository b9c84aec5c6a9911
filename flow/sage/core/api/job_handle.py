"""What `submit()` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage.common.errors import PipelineError

if TYPE_CHECKING:
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
        """created, running, finished, failed or cancelled (a `str` enum)."""
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
        """Stop reading; records that were read are still processed. Returns at once: `wait()` for the end."""
        self._job.cancel()

    def abort(self) -> None:
        """Stop now; records in flight are lost."""
        self._job.abort()

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

"""Runs a pipeline under the sampler."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sage.core.runtime import session
from sage.core.runtime.metrics import JobMetrics, OperatorMetrics
from sage.core.runtime.task import Task
from sage.utils.profiler.sampler import Sampler, thread_cpu
from sage.utils.profiler.stats import MemoryUsage, OperatorProfile, PipelineStats

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream, DataStreamSink
    from sage.core.api.job_handle import JobHandle
    from sage.core.api.local_environment import LocalEnvironment

__all__ = ["PipelineProfiler"]


class PipelineProfiler:
    """Profiles pipelines of an environment, with a sample every `interval` seconds (some per cent of one core).

    >>> import hashlib
    >>> from sage.core.api import LocalEnvironment
    >>> env = LocalEnvironment("profile")
    >>> texts = env.from_collection(range(20_000)).map(str, name="text")
    >>> slow = texts.map(lambda text: hashlib.scrypt(b"x", salt=b"y", n=2, r=1, p=1), name="hash")
    >>> stats = PipelineProfiler(env).analyze(slow.sink(lambda value: None))
    >>> stats.bottleneck
    'hash'
    """

    def __init__(self, env: LocalEnvironment, *, interval: float = 0.005) -> None:
        if interval <= 0:
            raise ValueError(f"an interval of {interval:g} s is not above 0")
        self._env = env
        self._interval = interval

    def analyze(self, *pipelines: DataStream[Any] | DataStreamSink, duration: float | None = None) -> PipelineStats:
        """Run these pipelines (none: all that was not submitted yet) to their end, or for `duration` seconds, after
        which they are stopped. Raises what `submit` raises."""
        outer = session.current()
        watched = replace(outer, keeps=True, jobs=[])  # has the job before it starts: its beginning is sampled too

        def running() -> list[tuple[Task, threading.Thread]]:
            return [pair for job in watched.jobs for pair in job.running_tasks()]

        with Sampler(running, self._interval) as sampler:
            with session.use(watched):
                handle = self._env.submit(*pipelines, block=False)
            outer.submitted(handle._job)
            self._wait(handle, duration)
        return _stats(handle, sampler)

    def _wait(self, handle: JobHandle, duration: float | None) -> None:
        try:
            handle.wait(duration)
        except TimeoutError:
            handle.cancel()
            handle.wait()
        except KeyboardInterrupt:
            handle.abort()
            raise


def _stats(handle: JobHandle, sampler: Sampler) -> PipelineStats:
    metrics = handle.metrics()
    numbers = handle._job.operator_numbers()
    cpu, runtime = sampler.cpu()
    knows_cpu = thread_cpu(0) is not None  # of this thread
    return PipelineStats(
        job=handle.name,
        elapsed_s=handle.seconds,
        operators=[
            _profile(row, handle.seconds, cpu.get(numbers[row.operator], 0.0) if knows_cpu else None)
            for row in metrics.operators
        ],
        memory_usage=MemoryUsage(sampler.start_memory, sampler.peak_memory, _state(metrics)),
        runtime_cpu_s=runtime if knows_cpu else None,
        samples=sampler.samples,
        flame=sampler.flame,
    )


def _profile(row: OperatorMetrics, elapsed: float, cpu_s: float | None) -> OperatorProfile:
    span = max(elapsed, 1e-9) * row.parallelism
    return OperatorProfile(
        operator=row.operator,
        kind=row.kind,
        parallelism=row.parallelism,
        records_in=row.records_in,
        records_out=row.records_out,
        wall_s=row.busy_s,
        cpu_s=cpu_s,
        busy=min(1.0, row.busy_s / span),
        idle=min(1.0, row.idle_s / span),
        blocked=min(1.0, row.blocked_s / span),
    )


def _state(metrics: JobMetrics) -> int:
    return sum(row.state_bytes for row in metrics.operators)

"""`LocalEnvironment`: where pipelines are built and run on this machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from sage.common.errors import PipelineError
from sage.core.api.config import parse_config
from sage.core.api.datastream import DataStream, DataStreamSink
from sage.core.api.elsewhere import ENVIRONMENTS, Elsewhere
from sage.core.api.function.base_function import StopSignal
from sage.core.api.function.functions import BatchFunction, SourceFunction
from sage.core.api.function.service_calls import ServiceCalls
from sage.core.api.job_handle import JobHandle
from sage.core.api.reading import ReadingMixin
from sage.core.api.service_options import ServiceOptions
from sage.core.connectors.base import Source
from sage.core.graph.logical import LogicalGraph
from sage.core.graph.origin import Origin
from sage.core.graph.plan import PhysicalPlan, build_plan
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.graph.spec import OperatorKind, checked_parallelism
from sage.core.runtime import session
from sage.core.runtime.services import ServiceRegistry

if TYPE_CHECKING:
    from sage.core.api.columns.stream import ColumnStream
    from sage.core.runtime.local.job import LocalJob

__all__ = ["LocalEnvironment"]

R = TypeVar("R")


class LocalEnvironment(ReadingMixin, Elsewhere):
    """Builds pipelines and runs them on threads of this process, or in worker processes (`execution.runtime`).

    `config` takes dotted or nested keys: `parallelism` (1), `buffer.timeout` (10 ms: how long a record may wait to
    travel with others), `buffer.size` (1024 records), `channel.capacity` (4 batches between two tasks), `chaining`
    (true: operators are fused).

    Jobs are recorded in the `.sage/` directory if there is one: `$SAGE_HOME`, the nearest one at or above the current
    folder, or the one in the home directory. `sage run` makes one.
    """

    elsewhere = ENVIRONMENTS

    def __init__(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        origin = Origin.of_caller()
        if not str(name).strip():
            raise PipelineError(f"An environment needs a name ({origin})", cause=f"got {name!r}")
        self.name = str(name)
        self._settings = parse_config(config, origin)
        self._graph = LogicalGraph()
        self._submitted: set[int] = set()
        self._jobs = 0
        self._services = ServiceRegistry()
        self._origin = origin
        self._background: list[LocalJob] = []
        weakref.finalize(self, self._services.close)
        session.current().built(self)

    @property
    def parallelism(self) -> int:
        """The parallelism of operators that name none; `sage run --parallelism` overrides it."""
        return session.current().parallelism or self._settings.parallelism

    def from_collection(self, data: Iterable[R], *, name: str | None = None) -> DataStream[R]:
        """A stream of the records of a list or another iterable; read in order by one subtask."""
        origin = Origin.of_caller()
        return self._source(SourceSpec.collection(data, origin), name or "from_collection", 1, origin)

    @overload
    def from_batch(
        self, data: BatchFunction[R] | type[BatchFunction[R]], *, name: str | None = ...
    ) -> DataStream[R]: ...
    @overload
    def from_batch(self, data: Iterable[R] | Callable[[], Iterable[R]], *, name: str | None = ...) -> DataStream[R]: ...
    def from_batch(self, data: Any, *, name: str | None = None) -> DataStream[Any]:
        """A bounded stream: an iterable, a BatchFunction, or a function that returns (or yields) the records."""
        origin = Origin.of_caller()
        return self._source(SourceSpec.batch(data, origin), name or "from_batch", 1, origin)

    @overload
    def from_source(
        self, source: SourceFunction[R] | type[SourceFunction[R]], *, name: str | None = ..., parallelism: int = ...
    ) -> DataStream[R]: ...
    @overload
    def from_source(self, source: Source[R], *, name: str | None = ..., parallelism: int = ...) -> DataStream[R]: ...
    @overload
    def from_source(self, source: Iterable[R], *, name: str | None = ..., parallelism: int = ...) -> DataStream[R]: ...
    @overload
    def from_source(
        self, source: Callable[[], Iterator[R]], *, name: str | None = ..., parallelism: int = ...
    ) -> DataStream[R]: ...
    @overload
    def from_source(
        self, source: Callable[[], R | StopSignal | type[StopSignal]], *, name: str | None = ..., parallelism: int = ...
    ) -> DataStream[R]: ...
    def from_source(self, source: Any, *, name: str | None = None, parallelism: int = 1) -> DataStream[Any]:
        """A stream of a connector's Source, of a SourceFunction (class or instance), of a generator, or of a function
        called for each record.

        With a parallelism above 1 every subtask reads a source of its own, or its share of a connector's splits.
        """
        origin = Origin.of_caller()
        return self._source(SourceSpec.any(source, origin), name or "from_source", parallelism, origin)

    def from_future(self, name: str) -> DataStream[Any]:
        """A stream that is filled later, by `stream.fill_future(...)`, with what comes out of it: see there."""
        origin = Origin.of_caller()
        spec = SourceSpec(SourceKind.FUTURE, True, name)
        if any(node.source == spec for node in self._graph.nodes):
            raise PipelineError(f"There are two futures {name!r} ({origin})", hint="give each its own name")
        return self._source(spec, name, 1, origin)

    def from_columns(self, data: Any, *, batch_size: int = 65_536, name: str | None = None) -> ColumnStream:
        """Columnar data: a mapping of names to equally long lists, a `pyarrow.Table`, or Arrow record batches.

        Expressions (`select`, `where`) run on it in Arrow, many times as fast as a function for each record. Raises
        PipelineError without pyarrow, or for data that is not columnar.
        """
        from sage.core.api.columns.stream import ColumnStream, record_batches

        origin = Origin.of_caller()
        batches = record_batches(data, batch_size, origin)
        return ColumnStream(self._source(SourceSpec.collection(batches, origin), name or "from_columns", 1, origin))

    def register_service(
        self, name: str, factory: Any, *args: Any, service_options: ServiceOptions | None = None, **kwargs: Any
    ) -> None:
        """Offer a service to all functions: made with `factory(*args, **kwargs)` on first use, then shared.

        Keywords that the factory has no parameter for are options: `replicas=`, `shards=`, `timeout=`, `retry=`,
        `fallback=` and the others of ServiceOptions; with `service_options=ServiceOptions(...)` all keywords are the
        factory's. If the service has a method `close`, that is called when the environment ends: `close()`, the end of
        a `with` block, of the program or of `sage run`. So a service lives through several `submit()`.
        """
        self._services.register(name, factory, args, kwargs, service_options)

    def service_health(self) -> list[dict[str, Any]]:
        """The instances of all services: service, shard, replica, made, healthy, in_flight, failures (in a row)."""
        return self._services.health()

    @property
    def call_service(self) -> ServiceCalls:
        """The services, as functions see them: `env.call_service["name"].method(…)`."""
        return ServiceCalls(self._services)

    def configure_debug(
        self,
        *,
        enable_tracing: bool | None = None,
        metrics_interval: str | float | None = None,
        log_level: str | int | None = None,
    ) -> None:
        """Look closer at the jobs that are submitted from now on; what is not given stays as it is.

        `enable_tracing`: some records a second (`tracing.records_per_second`, 100) are followed through all operators;
        their spans go to OpenTelemetry where the program has set up a tracer provider, else to
        `.sage/traces/<job id>.jsonl`. `metrics_interval`: how often a job's numbers are written to `.sage/state.db`
        ("10s", or milliseconds). `log_level`: which messages of SAGE are shown on stderr ("DEBUG"). Raises ConfigError
        for a value that does not fit.
        """
        origin = Origin.of_caller()
        given = {"tracing.enabled": enable_tracing, "metrics.interval": metrics_interval}
        checked = parse_config({key: value for key, value in given.items() if value is not None}, origin).observability
        known = self._settings.observability
        self._settings = replace(
            self._settings,
            observability=replace(
                known,
                tracing=known.tracing if enable_tracing is None else checked.tracing,
                interval=known.interval if metrics_interval is None else checked.interval,
            ),
        )
        if log_level is not None:
            from sage.core.runtime.debug_log import show_logs

            show_logs(log_level, origin)

    def submit(
        self,
        *pipelines: DataStream[Any] | DataStreamSink,
        block: bool = True,
        autostop: bool = True,
    ) -> JobHandle:
        """Run what was built since the last `submit()`, or only what belongs to these pipelines.

        Returns when everything is out; with `block=False` at once, and the handle's `wait()` tells the end. A job ends
        when its sources do, with `autostop` or without; Ctrl-C stops the reading and lets what was read run out, a
        second one aborts. Raises PipelineError when an operator fails.
        """
        plan = self._plan(pipelines)
        job = self._job(plan)
        handle = JobHandle(job)
        if block:
            self._run_out(job, handle)
        else:
            self._background = [*self._in_background(), job]
            self._start(job)
        return handle

    def explain(self, format: Literal["text", "json", "mermaid"] = "text") -> str:  # noqa: A002 - the word for it
        """The physical plan of everything that was built: tasks, fused operators, how records travel between them.

        `mermaid` is a flowchart for Markdown. Raises PipelineError for another format.
        """
        from sage.core.graph.explain import explained

        plan = build_plan(
            self._graph, range(len(self._graph.nodes)), self.parallelism, chaining=self._settings.chaining
        )
        return explained(self.name, plan, format)

    def close(self) -> None:
        """Wait for the jobs that still run in the background, then close the services that were made."""
        for job in self._in_background():
            job.wait()
        self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for job in self._in_background():
                job.cancel()
        self.close()

    @property
    def unsubmitted(self) -> list[str]:
        """The operators that no `submit()` has run, by name."""
        return [node.name for node in self._graph.nodes if node.index not in self._submitted]

    def _source(self, spec: SourceSpec, name: str, parallelism: int, origin: Origin) -> DataStream[Any]:
        node = self._graph.add(
            OperatorKind.SOURCE,
            name=name,
            function=None,
            inputs=(),
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
            source=spec,
        )
        return DataStream(self, node)

    def _plan(self, pipelines: tuple[DataStream[Any] | DataStreamSink, ...]) -> PhysicalPlan:
        for pipeline in pipelines:
            if getattr(pipeline, "env", None) is not self:
                raise PipelineError(
                    f"submit() got something that is no pipeline of this environment ({Origin.of_caller()})",
                    cause=f"got {pipeline!r:.80}",
                    hint="pass what .sink(...) or .print() returned, or nothing",
                )
        wanted = {pipeline._node.index for pipeline in pipelines}
        chosen = self._graph.component(wanted) if wanted else {node.index for node in self._graph.nodes}
        chosen -= self._submitted
        plan = build_plan(self._graph, chosen, self.parallelism, chaining=self._settings.chaining)
        self._refuse_unfilled(chosen)
        self._submitted |= chosen
        for node in plan.dangling():
            session.warn(f"the records of {node.name!r} ({node.origin}) go nowhere: end it with .print() or .sink(...)")
        return plan

    def _refuse_unfilled(self, chosen: set[int]) -> None:
        filled = {future for _, future in self._graph.feedback}
        for node in self._graph.nodes:
            future = node.source is not None and node.source.kind is SourceKind.FUTURE
            if node.index in chosen and future and node.index not in filled:
                raise PipelineError(
                    f"Nothing fills the future {node.name!r} ({node.origin})",
                    cause="it would wait for ever",
                    hint="call fill_future(...) with it on a stream, before submit()",
                )

    def _job(self, plan: PhysicalPlan) -> LocalJob:
        from sage.core.runtime.local.launch import new_job

        self._jobs += 1
        settings = replace(self._settings, parallelism=self.parallelism)
        return new_job(self, plan, settings, self._services, self._origin, self._jobs)

    def _in_background(self) -> list[LocalJob]:
        return [job for job in self._background if job.ended_at is None]

    def _start(self, job: LocalJob) -> None:
        session.current().submitted(job)
        job.start()

    def _run_out(self, job: LocalJob, handle: JobHandle) -> None:
        """Wait for the end. The first Ctrl-C stops the reading, the second one everything."""
        interrupts = 0
        while True:
            try:
                if interrupts == 0:
                    self._start(job)
                elif interrupts == 1:
                    session.say_stopping()
                    handle.cancel()
                elif interrupts > 1:
                    handle.abort()
                handle.wait()
                break
            except KeyboardInterrupt:
                interrupts += 1
            except PipelineError:
                if interrupts == 0:
                    raise
                break
        if interrupts:
            raise KeyboardInterrupt

"""Windowed streams: a keyed stream cut into windows, and what is done with each of them.

After Flink's WindowedStream and AllWindowedStream; `docs/flow.md` explains windows, triggers and late records.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from sage.common.errors import PipelineError
from sage.core.api.function.functions import AggregateFunction, Collector, ReduceFunction
from sage.core.api.function.window_functions import ProcessWindowFunction, WindowFunction
from sage.core.api.options import OperatorOptions, checked_options
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.api.windows.assigners import MergingWindowAssigner, WindowAssigner
from sage.core.api.windows.evictors import Evictor
from sage.core.api.windows.triggers import Trigger
from sage.core.api.windows.types import Duration, WindowResult, checked_duration
from sage.core.graph.origin import Origin, describe
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind
from sage.core.runtime.operators.window_aggregates import Count, Field, Max, Mean, Min, Sum, as_result
from sage.core.runtime.operators.window_contents import ContentsSpec
from sage.core.runtime.operators.window_factory import WindowFactory
from sage.core.runtime.operators.windows import WindowSpec

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream, KeyedStream

__all__ = ["WindowedStream"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")
W = TypeVar("W", bound=Hashable)
ACC = TypeVar("ACC")


class WindowedStream(Generic[K, T, W]):
    """The windows of a keyed stream. Settings return a new WindowedStream; the other methods add the operator.

    Results have the time of their window's last millisecond. Late records (whose windows are gone) are dropped, unless
    `side_output_late_data` names where they go.
    """

    def __init__(
        self,
        stream: KeyedStream[K, T],
        assigner: WindowAssigner[Any, W],
        *,
        spec: WindowSpec | None = None,
        single: bool = False,
    ) -> None:
        if not isinstance(assigner, WindowAssigner):
            raise PipelineError(
                f"window needs a window assigner ({Origin.of_caller()})",
                cause=f"got {assigner!r:.80}",
                hint='for example TumblingEventTimeWindows.of("10s")',
            )
        self._stream = stream
        self._spec = spec or WindowSpec(assigner)
        self._single = single  # without keys: one subtask

    def trigger(self, trigger: Trigger[Any, Any]) -> WindowedStream[K, T, W]:
        """When windows put their contents out; the default fires once, at the end of the window.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.windows import CountTrigger, GlobalWindows, PurgingTrigger
        >>> env = LocalEnvironment("example")
        >>> windows = env.from_collection([1, 2, 3, 4, 5]).key_by(lambda x: 0).window(GlobalWindows.create())
        >>> _ = windows.trigger(PurgingTrigger.of(CountTrigger.of(2))).reduce(lambda a, b: a + b).print()
        >>> _ = env.submit()
        3
        7
        """
        if not isinstance(trigger, Trigger):
            raise _wrong("trigger needs a Trigger", f"got {trigger!r:.80}", "for example CountTrigger.of(10)")
        if isinstance(self._spec.assigner, MergingWindowAssigner) and not trigger.can_merge():
            raise _wrong(
                f"{type(trigger).__name__} does not work with windows that merge",
                f"{type(self._spec.assigner).__name__} merges windows",
                "use a trigger whose can_merge() is true",
            )
        return self._with(trigger=trigger)

    def evictor(self, evictor: Evictor[Any]) -> WindowedStream[K, T, W]:
        """Which records are left out when a window fires. The window then keeps all its records, also when it
        aggregates.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import CountEvictor, TumblingEventTimeWindows
        >>> env = LocalEnvironment("example")
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
        >>> keyed = env.from_collection([1, 2, 3]).assign_timestamps_and_watermarks(times).key_by(lambda x: 0)
        >>> last_two = keyed.window(TumblingEventTimeWindows.of(10)).evictor(CountEvictor.of(2))
        >>> _ = last_two.apply(lambda key, window, values, out: [values]).print()
        >>> _ = env.submit()
        [2, 3]
        """
        if not isinstance(evictor, Evictor):
            raise _wrong("evictor needs an Evictor", f"got {evictor!r:.80}", "for example CountEvictor.of(10)")
        return self._with(evictor=evictor)

    def allowed_lateness(self, lateness: Duration) -> WindowedStream[K, T, W]:
        """Keep windows for so long after their end: a record that comes then is added, and its window fires again.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import TumblingEventTimeWindows
        >>> env = LocalEnvironment("example")
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
        >>> keyed = env.from_collection([1, 2, 25, 3]).assign_timestamps_and_watermarks(times).key_by(lambda x: 0)
        >>> counts = keyed.window(TumblingEventTimeWindows.of(10)).allowed_lateness("30ms").count()
        >>> _ = counts.map(lambda result: result.value).print()
        >>> _ = env.submit()
        2
        3
        1
        """
        return self._with(lateness=checked_duration(lateness, "The allowed lateness", least=0))

    def side_output_late_data(self, tag: OutputTag[Any]) -> WindowedStream[K, T, W]:
        """Put late records out under this tag; read them with `get_side_output` of the resulting stream.

        >>> from sage.core.api import LocalEnvironment, OutputTag
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import TumblingEventTimeWindows
        >>> env, late = LocalEnvironment("example"), OutputTag("late")
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
        >>> stream = env.from_collection([1, 2, 25, 3]).assign_timestamps_and_watermarks(times).key_by(lambda x: 0)
        >>> counts = stream.window(TumblingEventTimeWindows.of(10)).side_output_late_data(late).count()
        >>> _ = counts.map(lambda result: result.value).print("count ")
        >>> _ = counts.get_side_output(late).print("late ")
        >>> _ = env.submit()
        count 2
        late 3
        count 1
        """
        return self._with(late=tag_name(tag))

    def reduce(
        self,
        function: Callable[[T, T], T] | ReduceFunction[T] | type[ReduceFunction[T]],
        window_function: Any = None,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[Any]:
        """Fold each window's records as they come, and put the result out when the window fires; through
        `window_function` (as in `apply` or `process`), if one is given.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([3, 1, 2, 5]).key_by(lambda x: 0).count_window(2).reduce(max).print()
        >>> _ = env.submit()
        3
        5
        """
        spec = self._checked(function, OperatorKind.REDUCE)
        return self._folded(ContentsSpec("reduce", spec), window_function, "window reduce", options)

    @overload
    def aggregate(
        self,
        function: AggregateFunction[T, ACC, R] | type[AggregateFunction[T, ACC, R]],
        window_function: None = ...,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def aggregate(self, function: Any, window_function: Any, **options: Unpack[OperatorOptions]) -> DataStream[Any]: ...
    def aggregate(
        self, function: Any, window_function: Any = None, **options: Unpack[OperatorOptions]
    ) -> DataStream[Any]:
        """Fold each window's records into an accumulator as they come, and put its result out when the window fires;
        through `window_function` (as in `apply` or `process`), if one is given.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import AggregateFunction
        >>> class Spread(AggregateFunction):
        ...     def create_accumulator(self):
        ...         return []
        ...     def add(self, value, accumulator):
        ...         return accumulator + [value]
        ...     def get_result(self, accumulator):
        ...         return max(accumulator) - min(accumulator)
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([3, 1, 2, 9]).key_by(lambda x: 0).count_window(2).aggregate(Spread).print()
        >>> _ = env.submit()
        2
        7
        """
        spec = self._checked(function, FunctionKind.AGGREGATE)
        if isinstance(self._spec.assigner, MergingWindowAssigner) and not _can_merge(function):
            raise _wrong(
                f"{describe(function)} has no merge()",
                f"{type(self._spec.assigner).__name__} merges windows, and so their accumulators",
                "define merge(accumulator, other)",
            )
        return self._folded(ContentsSpec("aggregate", spec), window_function, "window aggregate", options)

    @overload
    def apply(
        self,
        function: WindowFunction[K, T, R, W] | type[WindowFunction[K, T, R, W]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def apply(
        self, function: Callable[[K, W, list[T], Collector[Any]], Any], **options: Unpack[OperatorOptions]
    ) -> DataStream[Any]: ...
    def apply(self, function: Any, **options: Unpack[OperatorOptions]) -> DataStream[Any]:
        """Call a function with each window that fires: `function(key, window, values, out)`. What it returns,
        if anything, is put out too. All records of a window are kept until then.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> words = env.from_collection("the quick brown fox".split()).key_by(lambda word: "all")
        >>> _ = words.count_window(2).apply(lambda key, window, values, out: [" ".join(values)]).print()
        >>> _ = env.submit()
        the quick
        brown fox
        """
        return self._whole(self._checked(function, FunctionKind.WINDOW), "window apply", options)

    def process(
        self,
        function: ProcessWindowFunction[K, T, R, W] | type[ProcessWindowFunction[K, T, R, W]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]:
        """As `apply`, with a context: the window, time, state of the window and of the key, side outputs.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import ProcessWindowFunction
        >>> class Median(ProcessWindowFunction):
        ...     def process(self, key, context, values, out):
        ...         out.collect((key, sorted(values)[len(values) // 2]))
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([5, 1, 3]).key_by(lambda x: "all").count_window(3).process(Median).print()
        >>> _ = env.submit()
        ('all', 3)
        """
        return self._whole(self._checked(function, FunctionKind.PROCESS_WINDOW), "window process", options)

    def count(self, **options: Unpack[OperatorOptions]) -> DataStream[WindowResult[K, W, int]]:
        """How many records each window has: (key, window, number).

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import TumblingEventTimeWindows
        >>> env = LocalEnvironment("example")
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda event: event[1])
        >>> events = env.from_collection([("a", 1), ("b", 3), ("a", 7), ("a", 12)])
        >>> keyed = events.assign_timestamps_and_watermarks(times).key_by(lambda event: event[0])
        >>> counts = keyed.window(TumblingEventTimeWindows.of(10)).count()
        >>> _ = counts.map(lambda result: (result.key, result.window.start, result.value)).print()
        >>> _ = env.submit()
        ('a', 0, 2)
        ('b', 0, 1)
        ('a', 10, 1)
        """
        return self._builtin(Count(), "window count", options)

    def sum(self, field: Field = None, **options: Unpack[OperatorOptions]) -> DataStream[WindowResult[K, W, Any]]:
        """The sum of each window's records, or of a field of them: (key, window, sum).

        `field`: a position, key, attribute or function of a record; None: the record itself.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> windows = env.from_collection([("a", 1), ("a", 5)]).key_by(lambda r: r[0]).count_window(2)
        >>> _ = windows.sum(1).map(lambda result: result.value).print()
        >>> _ = env.submit()
        6
        """
        return self._builtin(Sum(field), "window sum", options)

    def min(self, field: Field = None, **options: Unpack[OperatorOptions]) -> DataStream[WindowResult[K, W, Any]]:
        """The least record of each window, or value of a field: (key, window, value).

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> windows = env.from_collection([("a", 1), ("a", 5)]).key_by(lambda r: r[0]).count_window(2)
        >>> _ = windows.min(1).map(lambda result: result.value).print()
        >>> _ = env.submit()
        1
        """
        return self._builtin(Min(field), "window min", options)

    def max(self, field: Field = None, **options: Unpack[OperatorOptions]) -> DataStream[WindowResult[K, W, Any]]:
        """The greatest record of each window, or value of a field: (key, window, value).

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> windows = env.from_collection([("a", 1), ("a", 5)]).key_by(lambda r: r[0]).count_window(2)
        >>> _ = windows.max(1).map(lambda result: result.value).print()
        >>> _ = env.submit()
        5
        """
        return self._builtin(Max(field), "window max", options)

    def mean(self, field: Field = None, **options: Unpack[OperatorOptions]) -> DataStream[WindowResult[K, W, float]]:
        """The mean of each window's records, or of a field of them: (key, window, mean).

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> windows = env.from_collection([("a", 1), ("a", 5)]).key_by(lambda r: r[0]).count_window(2)
        >>> _ = windows.mean(1).map(lambda result: result.value).print()
        >>> _ = env.submit()
        3.0
        """
        return self._builtin(Mean(field), "window mean", options)

    def _with(self, **changes: Any) -> WindowedStream[K, T, W]:
        spec = replace(self._spec, **changes)
        return WindowedStream(self._stream, spec.assigner, spec=spec, single=self._single)

    def _checked(self, function: Any, kind: FunctionKind | OperatorKind) -> FunctionSpec:
        return FunctionSpec.checked(function, kind, Origin.of_caller())

    def _folded(
        self, contents: ContentsSpec, window_function: Any, name: str, options: OperatorOptions
    ) -> DataStream[Any]:
        function = None if window_function is None else self._window_function(window_function)
        return self._add(replace(self._spec, contents=contents, function=function), name, options)

    def _whole(self, function: FunctionSpec, name: str, options: OperatorOptions) -> DataStream[Any]:
        return self._add(replace(self._spec, function=function), name, options)

    def _builtin(self, aggregate: Any, name: str, options: OperatorOptions) -> DataStream[Any]:
        contents = ContentsSpec("aggregate", self._checked(aggregate, FunctionKind.AGGREGATE))
        function = self._checked(as_result, FunctionKind.WINDOW)
        return self._add(replace(self._spec, contents=contents, function=function), name, options)

    def _window_function(self, function: Any) -> FunctionSpec:
        """A WindowFunction, a ProcessWindowFunction, or a plain function as in `apply`."""
        kind = FunctionKind.PROCESS_WINDOW if _processes(function) else FunctionKind.WINDOW
        return self._checked(function, kind)

    def _add(self, spec: WindowSpec, name: str, options: OperatorOptions) -> DataStream[Any]:
        parallelism = checked_options(options, name).get("parallelism")
        if self._single and parallelism not in (None, 1):
            raise _wrong(
                "window_all cannot run in parallel", f"parallelism={parallelism} was asked for", "use key_by(...)"
            )
        return self._stream._operator(
            options.get("name") or name,
            WindowFactory(spec),
            label=_label(spec),
            parallelism=1 if self._single else parallelism,
            uid=options.get("uid"),
        )


def _processes(function: Any) -> bool:
    kind = function if isinstance(function, type) else type(function)
    return issubclass(kind, ProcessWindowFunction) or (hasattr(kind, "process") and not hasattr(kind, "apply"))


def _can_merge(function: Any) -> bool:
    kind = function if isinstance(function, type) else type(function)
    return getattr(kind, "merge", None) not in (None, AggregateFunction.merge)


def _label(spec: WindowSpec) -> str:
    parts = [type(spec.assigner).__name__]
    parts += [type(part).__name__ for part in (spec.trigger, spec.evictor) if part is not None]
    return ", ".join(parts)


def _wrong(message: str, cause: str, hint: str) -> PipelineError:
    origin = Origin.of_caller()
    return PipelineError(
        f"{message} ({origin})", cause=cause, hint=hint, details={"file": origin.file, "line": origin.line}
    )

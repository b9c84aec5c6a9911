"""Joins of two streams in event or processing time: in windows, and over intervals. After Flink's page "Joining".

https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/joining/
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from sage.common.errors import PipelineError
from sage.core.api.elsewhere import JOINS, Elsewhere
from sage.core.api.function.functions import Collector
from sage.core.api.function.window_functions import CoGroupFunction, JoinFunction, ProcessJoinFunction
from sage.core.api.options import OperatorOptions, checked_options
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.api.windows.assigners import MergingWindowAssigner, WindowAssigner
from sage.core.api.windows.evictors import Evictor
from sage.core.api.windows.triggers import Trigger
from sage.core.api.windows.types import Duration, checked_duration
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec
from sage.core.runtime.operators.interval_join import IntervalJoinFactory
from sage.core.runtime.operators.window_joins import WindowJoinFactory
from sage.core.runtime.operators.windows import WindowSpec

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream, KeyedStream

__all__ = ["CoGroupedStreams", "IntervalJoin", "JoinedStreams", "WindowedCoGroup", "WindowedJoin"]

K = TypeVar("K", bound=Hashable)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")


class _TwoStreams(Elsewhere, Generic[T1, T2]):
    """Two streams, and the keys by which they meet."""

    elsewhere = JOINS

    _kind = ""

    def __init__(self, first: DataStream[T1], second: DataStream[T2]) -> None:
        first._same_environment(second, self._kind, Origin.of_caller())
        self._first = first
        self._second = second
        self._where: Callable[[T1], Hashable] | None = None
        self._equal_to: Callable[[T2], Hashable] | None = None

    def _keyed(self) -> tuple[KeyedStream[Any, T1], KeyedStream[Any, T2]]:
        if self._where is None or self._equal_to is None:
            raise PipelineError(
                f"{self._kind} needs a key for both streams ({Origin.of_caller()})",
                cause="where(...) or equal_to(...) is missing",
                hint=f"first.{self._kind}(second).where(key1).equal_to(key2).window(...).apply(...)",
            )
        return self._first.key_by(self._where), self._second.key_by(self._equal_to)


class JoinedStreams(_TwoStreams[T1, T2], Generic[T1, T2]):
    """`first.join(second)`: say by which keys, and in which windows."""

    _kind = "join"

    def where(self, key: Callable[[T1], Hashable]) -> JoinedStreams[T1, T2]:
        """The key of a record of the first stream."""
        self._where = key
        return self

    def equal_to(self, key: Callable[[T2], Hashable]) -> JoinedStreams[T1, T2]:
        """The key of a record of the second stream."""
        self._equal_to = key
        return self

    def window(self, assigner: WindowAssigner[Any, Any]) -> WindowedJoin[T1, T2]:
        """The windows in which records meet."""
        return WindowedJoin(*self._keyed(), _spec(assigner))


class CoGroupedStreams(_TwoStreams[T1, T2], Generic[T1, T2]):
    """`first.co_group(second)`: say by which keys, and in which windows."""

    _kind = "co_group"

    def where(self, key: Callable[[T1], Hashable]) -> CoGroupedStreams[T1, T2]:
        """The key of a record of the first stream."""
        self._where = key
        return self

    def equal_to(self, key: Callable[[T2], Hashable]) -> CoGroupedStreams[T1, T2]:
        """The key of a record of the second stream."""
        self._equal_to = key
        return self

    def window(self, assigner: WindowAssigner[Any, Any]) -> WindowedCoGroup[T1, T2]:
        """The windows in which records meet."""
        return WindowedCoGroup(*self._keyed(), _spec(assigner))


class _Windowed(Generic[T1, T2]):
    """Two keyed streams in the same windows."""

    def __init__(self, first: KeyedStream[Any, T1], second: KeyedStream[Any, T2], spec: WindowSpec) -> None:
        self._first = first
        self._second = second
        self._spec = spec

    def _operator(self, function: Any, kind: FunctionKind, name: str, options: OperatorOptions) -> DataStream[Any]:
        checked = FunctionSpec.checked(function, kind, Origin.of_caller())
        return self._first._operator(
            checked_options(options, name).get("name") or name,
            WindowJoinFactory(self._spec, checked),
            self._second,
            label=f"{type(self._spec.assigner).__name__}, {checked.label()}",
            parallelism=options.get("parallelism"),
            uid=options.get("uid"),
        )


class WindowedJoin(_Windowed[T1, T2], Generic[T1, T2]):
    """Pairs of records of one key in one window (an inner join). Settings return a new WindowedJoin."""

    def trigger(self, trigger: Trigger[Any, Any]) -> WindowedJoin[T1, T2]:
        """When windows put their pairs out."""
        return WindowedJoin(self._first, self._second, _with_trigger(self._spec, trigger))

    def evictor(self, evictor: Evictor[Any]) -> WindowedJoin[T1, T2]:
        """Which records are left out; an evictor sees pairs of the stream's number (0 or 1) and the record."""
        return WindowedJoin(self._first, self._second, replace(self._spec, evictor=evictor))

    def allowed_lateness(self, lateness: Duration) -> WindowedJoin[T1, T2]:
        """As WindowedStream.allowed_lateness."""
        return WindowedJoin(self._first, self._second, _with_lateness(self._spec, lateness))

    def side_output_late_data(self, tag: OutputTag[Any]) -> WindowedJoin[T1, T2]:
        """As WindowedStream.side_output_late_data, for the records of both streams."""
        return WindowedJoin(self._first, self._second, replace(self._spec, late=tag_name(tag)))

    def apply(
        self,
        function: Callable[[T1, T2], R] | JoinFunction[T1, T2, R] | type[JoinFunction[T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]:
        """Call `function(first, second)` for each pair, when the window fires.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import TumblingEventTimeWindows
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda event: event[1])
        >>> env = LocalEnvironment("example")
        >>> orders = env.from_collection([("a", 1), ("b", 2), ("a", 12)]).assign_timestamps_and_watermarks(times)
        >>> payments = env.from_collection([("a", 3), ("b", 14)]).assign_timestamps_and_watermarks(times)
        >>> joined = orders.join(payments).where(lambda order: order[0]).equal_to(lambda payment: payment[0])
        >>> pairs = joined.window(TumblingEventTimeWindows.of(10)).apply(lambda order, payment: (order, payment))
        >>> _ = pairs.print()
        >>> _ = env.submit()
        (('a', 1), ('a', 3))
        """
        return self._operator(function, FunctionKind.JOIN, "window join", options)


class WindowedCoGroup(_Windowed[T1, T2], Generic[T1, T2]):
    """The records of both streams of one key in one window, together. Settings return a new WindowedCoGroup."""

    def trigger(self, trigger: Trigger[Any, Any]) -> WindowedCoGroup[T1, T2]:
        """When windows call the function."""
        return WindowedCoGroup(self._first, self._second, _with_trigger(self._spec, trigger))

    def evictor(self, evictor: Evictor[Any]) -> WindowedCoGroup[T1, T2]:
        """Which records are left out; an evictor sees pairs of the stream's number (0 or 1) and the record."""
        return WindowedCoGroup(self._first, self._second, replace(self._spec, evictor=evictor))

    def allowed_lateness(self, lateness: Duration) -> WindowedCoGroup[T1, T2]:
        """As WindowedStream.allowed_lateness."""
        return WindowedCoGroup(self._first, self._second, _with_lateness(self._spec, lateness))

    def side_output_late_data(self, tag: OutputTag[Any]) -> WindowedCoGroup[T1, T2]:
        """As WindowedStream.side_output_late_data, for the records of both streams."""
        return WindowedCoGroup(self._first, self._second, replace(self._spec, late=tag_name(tag)))

    def apply(
        self,
        function: Callable[[list[T1], list[T2], Collector[Any]], Any]
        | CoGroupFunction[T1, T2, R]
        | type[CoGroupFunction[T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[Any]:
        """Call `function(firsts, seconds, out)` when a window fires; one of the lists may be empty (an outer join).
        What it returns (or yields), if anything, is put out too.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.windows import CountTrigger, GlobalWindows
        >>> env = LocalEnvironment("example")
        >>> grouped = env.from_collection([1, 2]).co_group(env.from_collection([2, 3]))
        >>> windows = grouped.where(lambda x: x).equal_to(lambda x: x).window(GlobalWindows.create())
        >>> pairs = windows.trigger(CountTrigger.of(2)).apply(lambda firsts, seconds, out: [(firsts, seconds)])
        >>> _ = pairs.print()
        >>> _ = env.submit()
        ([2], [2])
        """
        return self._operator(function, FunctionKind.CO_GROUP, "co-group", options)


class IntervalJoin(Generic[K, T1, T2]):
    """`left.interval_join(right)`: pairs of one key, of which the right record's time lies in an interval around the
    left one's. Event time only. Settings change this object and return it."""

    def __init__(self, left: KeyedStream[K, T1], right: KeyedStream[K, T2]) -> None:
        origin = Origin.of_caller()
        left._same_environment(right, "interval_join", origin)
        if right._key is None:
            raise PipelineError(
                f"interval_join needs a keyed stream ({origin})",
                cause="the other stream has no keys",
                hint="key_by(...)",
            )
        self._left, self._right = left, right
        self._bounds: tuple[int, int] | None = None
        self._exclusive = (False, False)
        self._late: tuple[str | None, str | None] = (None, None)

    def between(self, lower: Duration, upper: Duration) -> IntervalJoin[K, T1, T2]:
        """The interval: left time + lower ≤ right time ≤ left time + upper. Either bound may be negative ("-5s")."""
        bounds = (
            checked_duration(lower, "The lower bound of an interval join", least=None),
            checked_duration(upper, "The upper bound of an interval join", least=None),
        )
        if bounds[0] > bounds[1]:
            raise PipelineError(
                f"The interval is empty ({Origin.of_caller()})", cause=f"{lower!r} lies after {upper!r}"
            )
        self._bounds = bounds
        return self

    def lower_bound_exclusive(self) -> IntervalJoin[K, T1, T2]:
        """The lower bound itself is not in the interval."""
        self._exclusive = (True, self._exclusive[1])
        return self

    def upper_bound_exclusive(self) -> IntervalJoin[K, T1, T2]:
        """The upper bound itself is not in the interval."""
        self._exclusive = (self._exclusive[0], True)
        return self

    def side_output_left_late_data(self, tag: OutputTag[T1]) -> IntervalJoin[K, T1, T2]:
        """Where records of the left stream go whose time the watermark has passed; else they are dropped."""
        self._late = (tag_name(tag), self._late[1])
        return self

    def side_output_right_late_data(self, tag: OutputTag[T2]) -> IntervalJoin[K, T1, T2]:
        """Where records of the right stream go whose time the watermark has passed; else they are dropped."""
        self._late = (self._late[0], tag_name(tag))
        return self

    def apply(
        self,
        function: Callable[[T1, T2], R] | JoinFunction[T1, T2, R] | type[JoinFunction[T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]:
        """Call `function(left, right)` for each pair, as soon as both have come.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda event: event[1])
        >>> env = LocalEnvironment("example")
        >>> clicks = env.from_collection([("a", 1), ("a", 50)]).assign_timestamps_and_watermarks(times)
        >>> buys = env.from_collection([("a", 4), ("a", 70)]).assign_timestamps_and_watermarks(times)
        >>> joined = clicks.key_by(lambda e: e[0]).interval_join(buys.key_by(lambda e: e[0])).between(0, 10)
        >>> _ = joined.apply(lambda click, buy: (click, buy)).print()
        >>> _ = env.submit()
        (('a', 1), ('a', 4))
        """
        return self._operator(function, FunctionKind.JOIN, options)

    def process(
        self,
        function: ProcessJoinFunction[T1, T2, R] | type[ProcessJoinFunction[T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]:
        """As `apply`, with a context (the pair's time, `left_timestamp`, `right_timestamp`, side outputs)."""
        return self._operator(function, FunctionKind.PROCESS_JOIN, options)

    def _operator(self, function: Any, kind: FunctionKind, options: OperatorOptions) -> DataStream[Any]:
        if self._bounds is None:
            raise PipelineError(
                f"interval_join needs an interval ({Origin.of_caller()})", hint='between("-5s", "5s") before it'
            )
        lower, upper = self._bounds[0] + self._exclusive[0], self._bounds[1] - self._exclusive[1]
        checked = FunctionSpec.checked(function, kind, Origin.of_caller())
        return self._left._operator(
            checked_options(options, "interval join").get("name") or "interval join",
            IntervalJoinFactory(lower, upper, checked, self._late),
            self._right,
            label=f"{lower} to {upper} ms, {checked.label()}",
            parallelism=options.get("parallelism"),
            uid=options.get("uid"),
        )


def _spec(assigner: object) -> WindowSpec:
    if not isinstance(assigner, WindowAssigner):
        raise PipelineError(
            f"window needs a window assigner ({Origin.of_caller()})",
            cause=f"got {assigner!r:.80}",
            hint='for example TumblingEventTimeWindows.of("10s")',
        )
    return WindowSpec(assigner)


def _with_lateness(spec: WindowSpec, lateness: Duration) -> WindowSpec:
    return replace(spec, lateness=checked_duration(lateness, "The allowed lateness", least=0))


def _with_trigger(spec: WindowSpec, trigger: Trigger[Any, Any]) -> WindowSpec:
    if isinstance(spec.assigner, MergingWindowAssigner) and not trigger.can_merge():
        raise PipelineError(
            f"{type(trigger).__name__} does not work with windows that merge ({Origin.of_caller()})",
            cause=f"{type(spec.assigner).__name__} merges windows",
        )
    return replace(spec, trigger=trigger)

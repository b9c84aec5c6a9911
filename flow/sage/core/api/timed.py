"""The methods of streams that have to do with time: watermarks and windows. Joins stand in `joins`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.stream import Stream
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionSpec, OperatorKind

if TYPE_CHECKING:  # pipelines without windows do not pay for importing them
    from sage.core.api.datastream import DataStream, KeyedStream
    from sage.core.api.joins import CoGroupedStreams, IntervalJoin, JoinedStreams
    from sage.core.api.time import WatermarkStrategy
    from sage.core.api.windowed import WindowedStream
    from sage.core.api.windows.assigners import WindowAssigner
    from sage.core.api.windows.types import GlobalWindow

__all__ = ["KeyedWindowsMixin", "TimedMixin"]

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class TimedMixin(Stream[T]):
    """What every stream can do with time."""

    def assign_timestamps_and_watermarks(
        self,
        strategy: WatermarkStrategy[T] | WatermarkStrategy[Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[T]:
        """Give records their event time, and tell those downstream how far it has come.

        Call it as near to the source as possible. Watermarks that came from before end here.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> strategy = WatermarkStrategy.for_bounded_out_of_orderness("5s").with_timestamp_assigner(lambda e: e["time"])
        >>> env = LocalEnvironment("example")
        >>> events = env.from_collection([{"time": 1000}, {"time": 2000}])
        >>> _ = events.assign_timestamps_and_watermarks(strategy).map(lambda event: event["time"]).print()
        >>> _ = env.submit()
        1000
        2000
        """
        from sage.core.api.time import WatermarkStrategy
        from sage.core.runtime.operators.watermarks import WatermarkFactory

        if not isinstance(strategy, WatermarkStrategy):
            raise PipelineError(
                f"assign_timestamps_and_watermarks needs a WatermarkStrategy ({Origin.of_caller()})",
                cause=f"got {strategy!r:.80}",
                hint="for example WatermarkStrategy.for_monotonous_timestamps()",
            )
        factory = WatermarkFactory(strategy)
        return self._operator(name or "timestamps", factory, parallelism=parallelism, uid=uid)

    def window_all(self, assigner: WindowAssigner[Any, W]) -> WindowedStream[None, T, W]:
        """Windows over all records of the stream; they run in one subtask. The key in results is None.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import TumblingEventTimeWindows
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
        >>> env = LocalEnvironment("example")
        >>> stream = env.from_collection([1, 4, 12]).assign_timestamps_and_watermarks(times)
        >>> _ = stream.window_all(TumblingEventTimeWindows.of(10)).sum().map(lambda result: result.value).print()
        >>> _ = env.submit()
        5
        12
        """
        from sage.core.api.datastream import KeyedStream
        from sage.core.api.windowed import WindowedStream

        spec = FunctionSpec.checked(_no_key, OperatorKind.KEY_BY, Origin.of_caller())
        keyed: KeyedStream[None, T] = KeyedStream(
            self._env, self._node, spec, tag=self._tag, partitioning=self._partitioning
        )
        return WindowedStream(keyed, assigner, single=True)

    def join(self, other: DataStream[R]) -> JoinedStreams[T, R]:
        """Pair records of two streams that have the same key and stand in the same window: see JoinedStreams.

        `first.join(second).where(key1).equal_to(key2).window(assigner).apply(function)`
        """
        from sage.core.api.joins import JoinedStreams

        return JoinedStreams(self, other)  # type: ignore[arg-type]

    def co_group(self, other: DataStream[R]) -> CoGroupedStreams[T, R]:
        """Bring together all records of two streams that have the same key and stand in the same window.

        `first.co_group(second).where(key1).equal_to(key2).window(assigner).apply(function)`
        """
        from sage.core.api.joins import CoGroupedStreams

        return CoGroupedStreams(self, other)  # type: ignore[arg-type]


class KeyedWindowsMixin(Stream[T], Generic[K, T]):
    """What keyed streams can do with windows."""

    def window(self, assigner: WindowAssigner[Any, W]) -> WindowedStream[K, T, W]:
        """Cut the stream of each key into windows; see WindowedStream for what can be done with them.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.time import WatermarkStrategy
        >>> from sage.core.api.windows import EventTimeSessionWindows
        >>> times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
        >>> env = LocalEnvironment("example")
        >>> keyed = env.from_collection([1, 3, 20]).assign_timestamps_and_watermarks(times).key_by(lambda time: "a")
        >>> for result in [keyed.window(EventTimeSessionWindows.with_gap(5)).count()]:
        ...     _ = result.print()
        >>> _ = env.submit()
        WindowResult(key='a', window=TimeWindow(start=1, end=8), value=2)
        WindowResult(key='a', window=TimeWindow(start=20, end=25), value=1)
        """
        from sage.core.api.windowed import WindowedStream

        return WindowedStream(self, assigner)  # type: ignore[arg-type]

    def count_window(self, size: int, slide: int | None = None) -> WindowedStream[K, T, GlobalWindow]:
        """Windows of `size` records of a key. With `slide`: after every `slide` records, the last `size` of them.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> keyed = env.from_collection([1, 2, 3, 4]).key_by(lambda x: 0)
        >>> _ = keyed.count_window(3, slide=2).apply(lambda key, window, values, out: [values]).print()
        >>> _ = env.submit()
        [1, 2]
        [2, 3, 4]
        """
        from sage.core.api.windows import CountEvictor, CountTrigger, GlobalWindows, PurgingTrigger
        from sage.core.api.windows.types import is_count

        for count in (size, 1 if slide is None else slide):
            if not is_count(count, 1):
                raise PipelineError(
                    f"count_window needs numbers of at least 1 ({Origin.of_caller()})", cause=f"got {count!r}"
                )
        windows: WindowedStream[K, T, GlobalWindow] = self.window(GlobalWindows.create())
        if slide is None:
            return windows.trigger(PurgingTrigger.of(CountTrigger.of(size)))
        return windows.evictor(CountEvictor.of(size)).trigger(CountTrigger.of(slide))

    def interval_join(self, other: KeyedStream[K, R]) -> IntervalJoin[K, T, R]:
        """Pair records of two keyed streams whose times are near each other: see IntervalJoin.

        `left.interval_join(right).between(lower, upper).apply(function)`
        """
        from sage.core.api.joins import IntervalJoin

        return IntervalJoin(self, other)  # type: ignore[arg-type]


def _no_key(record: object) -> None:
    """All records have the same key."""


_no_key.is_constant_key = True  # type: ignore[attr-defined]

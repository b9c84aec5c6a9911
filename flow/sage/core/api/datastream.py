"""Streams: what operators are added to. Nothing runs before `env.submit()`.

Records are handed on by reference; an operator that changes a record in place changes it for every other consumer.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar, overload

from sage.common.errors import PipelineError
from sage.core.api.broadcast import BroadcastConnectedStream, BroadcastStream
from sage.core.api.columns.stream import ColumnsMixin
from sage.core.api.connected import ConnectedStreams, KeyedConnectedStreams
from sage.core.api.feedback import FeedbackMixin
from sage.core.api.keyed import KeyedMixin
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.api.partitioning import PartitioningMixin
from sage.core.api.stream import DataStreamSink
from sage.core.api.timed import KeyedWindowsMixin, TimedMixin
from sage.core.api.transformations import TransformationsMixin
from sage.core.api.writing import WritingMixin
from sage.core.graph.origin import Origin
from sage.core.graph.spec import OperatorKind, checked_parallelism

__all__ = ["DataStream", "DataStreamSink", "KeyedStream"]

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class DataStream(
    TransformationsMixin[T],
    ColumnsMixin[T],
    TimedMixin[T],
    PartitioningMixin[T],
    WritingMixin[T],
    FeedbackMixin[T],
    Generic[T],
):
    """A stream of records of type T.

    Every operator takes a function, a lambda, a bound method, a function class or an instance of one; `name=` shows in
    messages and metrics, `parallelism=` sets the number of its parallel subtasks (default: the environment's), `uid=`
    makes checkpoints find its state though the program around it has changed. With a parallelism of 1 throughout, the
    output has the order of the input.
    """

    def union(
        self,
        *others: DataStream[T],
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[T]:
        """All records of these streams; the order between the streams is not defined.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1, 2]).union(env.from_collection([3])).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [1, 2, 3]
        """
        origin = Origin.of_caller()
        for other in others:
            self._same_environment(other, "union", origin)
        node = self._env._graph.add(
            OperatorKind.UNION,
            name=name,
            function=None,
            inputs=tuple(stream._unkeyed()._edge() for stream in (self, *others)),
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
            uid=uid,
        )
        return self._plain(node)

    @overload
    def connect(self, other: BroadcastStream[R]) -> BroadcastConnectedStream[T, R]: ...
    @overload
    def connect(self, other: DataStream[R]) -> ConnectedStreams[T, R]: ...
    def connect(self, other: Any) -> BroadcastConnectedStream[T, Any] | ConnectedStreams[T, Any]:
        """One operator for two streams, of different types: see ConnectedStreams; or with a broadcast stream.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1]).connect(env.from_collection(["a"])).map(str, str.upper).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        ['1', 'A']
        """
        origin = Origin.of_caller()
        if isinstance(other, BroadcastStream):
            self._same_environment(other._stream, "connect", origin)
            return BroadcastConnectedStream(self, other)
        self._same_environment(other, "connect", origin)
        if isinstance(self, KeyedStream) and isinstance(other, KeyedStream):
            return KeyedConnectedStreams(self, other)
        return ConnectedStreams(self, other)

    def get_side_output(self, tag: OutputTag[R]) -> DataStream[R]:
        """What the operator that makes this stream put out under `tag`.

        >>> from sage.core.api import LocalEnvironment, OutputTag
        >>> odd = OutputTag("odd")
        >>> def part(x, context, out):
        ...     if x % 2:
        ...         context.output(odd, x)
        ...     else:
        ...         out.collect(x)
        >>> env, seen = LocalEnvironment("example"), []
        >>> parted = env.from_collection(range(5)).process(part)
        >>> _ = parted.get_side_output(odd).sink(seen.append)
        >>> _ = parted.print()
        >>> _ = env.submit()
        0
        2
        4
        >>> seen
        [1, 3]
        """
        origin = Origin.of_caller()
        name = tag_name(tag, origin)
        if self._node.kind is not OperatorKind.OPERATOR:
            raise PipelineError(
                f"{self._node.name!r} has no side outputs ({origin})",
                cause=f"a {self._node.kind} puts out one stream",
                hint="use process(...), whose context has output(tag, value)",
            )
        return DataStream(self._env, self._node, tag=name)

    def _unkeyed(self) -> DataStream[T]:
        return DataStream(self._env, self._node, tag=self._tag, partitioning=self._partitioning)


class KeyedStream(KeyedMixin[K, T], KeyedWindowsMixin[K, T], DataStream[T], Generic[K, T]):
    """A stream whose next operator sees all records of a key in one subtask, with state of its own for each key."""

    @overload  # type: ignore[override]
    def connect(self, other: BroadcastStream[R]) -> BroadcastConnectedStream[T, R]: ...
    @overload
    def connect(self, other: KeyedStream[K, R]) -> KeyedConnectedStreams[K, T, R]: ...
    @overload
    def connect(self, other: DataStream[R]) -> ConnectedStreams[T, R]: ...
    def connect(self, other: Any) -> Any:
        """As DataStream.connect; two keyed streams share keyed state and timers: see KeyedConnectedStreams."""
        return super().connect(other)

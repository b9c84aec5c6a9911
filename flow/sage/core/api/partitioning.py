"""How records choose among the subtasks of the next operator (names as in PyFlink's DataStream)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.functions import KeyByFunction
from sage.core.api.stream import Stream
from sage.core.graph.spec import OperatorKind, Partitioning

if TYPE_CHECKING:
    from sage.core.api.broadcast import BroadcastStream
    from sage.core.api.datastream import DataStream, KeyedStream
    from sage.core.api.state import MapStateDescriptor

__all__ = ["PartitioningMixin"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class PartitioningMixin(Stream[T]):
    """The partitioning methods of DataStream."""

    @overload
    def key_by(self, key: KeyByFunction[T, K] | type[KeyByFunction[T, K]]) -> KeyedStream[K, T]: ...
    @overload
    def key_by(self, key: BaseFunction | type[BaseFunction]) -> KeyedStream[Any, T]: ...
    @overload
    def key_by(self, key: Callable[[T], K]) -> KeyedStream[K, T]: ...
    def key_by(self, key: Any) -> KeyedStream[Any, T]:
        """Group by key: the next operator sees all records of a key in one subtask, in order.

        A key is a str, a number, bytes, None, a date or time, an enum, a UUID, a path, a frozen dataclass, or a tuple
        or frozenset of these.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3, 4]).key_by(lambda x: x % 2).reduce(max).print()
        >>> _ = env.submit()
        1
        2
        3
        4
        """
        from sage.core.api.datastream import KeyedStream

        return KeyedStream(self._env, self._node, self._checked(key, OperatorKind.KEY_BY), tag=self._tag)

    keyby = key_by

    def rebalance(self) -> DataStream[T]:
        """Deal the records out in turn over the subtasks of the next operator.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example", {"parallelism": 2})
        >>> _ = env.from_collection([1, 2]).rebalance().map(lambda x: x, name="work").print()
        >>> print(env.explain())  # doctest: +ELLIPSIS
        example: 3 operators in 2 tasks
        ...
          task 2 × 2  ← task 1 (rebalance)
        ...
        """
        return self._partitioned(Partitioning.REBALANCE)

    def rescale(self) -> DataStream[T]:
        """As `rebalance`, but each subtask deals only to its share of the next operator's: fewer channels.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> def where(x, context, out):
        ...     out.collect(context.function.subtask_index)
        >>> work = env.from_collection(range(4)).map(lambda x: x, parallelism=2)
        >>> _ = work.rescale().process(where, parallelism=2).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(set(seen))
        [0, 1]
        """
        return self._partitioned(Partitioning.RESCALE)

    def global_(self) -> DataStream[T]:
        """Send all records to the first subtask of the next operator.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> def where(x, context, out):
        ...     out.collect(context.function.subtask_index)
        >>> work = env.from_collection(range(4)).map(lambda x: x, parallelism=2)
        >>> _ = work.global_().process(where, parallelism=2).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [0, 0, 0, 0]
        """
        return self._partitioned(Partitioning.GLOBAL)

    def forward(self) -> DataStream[T]:
        """Send records to the subtask of the same number; the next operator must have the same parallelism.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> def where(x, context, out):
        ...     out.collect(context.function.subtask_index)
        >>> work = env.from_collection(range(4)).map(lambda x: x, parallelism=2)
        >>> _ = work.forward().process(where, parallelism=2).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [0, 0, 1, 1]
        """
        return self._partitioned(Partitioning.FORWARD)

    @overload
    def broadcast(self) -> DataStream[T]: ...
    @overload
    def broadcast(
        self, descriptor: MapStateDescriptor[Any, Any], *descriptors: MapStateDescriptor[Any, Any]
    ) -> BroadcastStream[T]: ...
    def broadcast(
        self, descriptor: MapStateDescriptor[Any, Any] | None = None, *descriptors: MapStateDescriptor[Any, Any]
    ) -> DataStream[T] | BroadcastStream[T]:
        """Send every record to every subtask of the next operator.

        With descriptors of map states: for `other.connect(broadcast_stream)`, whose function keeps what it needs of the
        records in these states (Flink's Broadcast State Pattern).

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1]).broadcast().map(lambda x: x, parallelism=3).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [1, 1, 1]
        """
        from sage.core.api.broadcast import BroadcastStream

        stream = self._partitioned(Partitioning.BROADCAST)
        return stream if descriptor is None else BroadcastStream(stream, (descriptor, *descriptors))

    def _partitioned(self, partitioning: Partitioning) -> DataStream[T]:
        from sage.core.api.datastream import DataStream

        return DataStream(self._env, self._node, tag=self._tag, partitioning=partitioning)

"""Streams: what operators are added to. Nothing runs before `env.submit()`.

Records are handed on by reference; an operator that changes a record in place changes it for every other consumer.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.functions import (
    Collector,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    MapFunction,
    ProcessContext,
    ProcessFunction,
    ReduceFunction,
    SinkFunction,
)
from sage.core.graph.logical import LogicalEdge, LogicalNode
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionSpec, OperatorKind, checked_parallelism

if TYPE_CHECKING:
    from sage.core.api.local_environment import LocalEnvironment

__all__ = ["DataStream", "DataStreamSink", "KeyedStream"]

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class DataStream(Generic[T]):
    """A stream of records of type T.

    Every operator takes a function, a lambda, a bound method, a function class or an instance of one; `name=` shows in
    messages and metrics, `parallelism=` sets the number of its parallel subtasks (default: the environment's).
    With a parallelism of 1 throughout, the output has the order of the input.
    """

    def __init__(self, env: LocalEnvironment, node: LogicalNode, key: FunctionSpec | None = None) -> None:
        self._env = env
        self._node = node
        self._key = key

    @property
    def env(self) -> LocalEnvironment:
        """The environment that this stream belongs to."""
        return self._env

    @property
    def name(self) -> str:
        """The name of the operator that makes this stream."""
        return self._node.name

    @overload
    def map(
        self,
        function: MapFunction[T, R] | type[MapFunction[T, R]],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self, function: BaseFunction | type[BaseFunction], *, name: str | None = ..., parallelism: int | None = ...
    ) -> DataStream[Any]: ...
    @overload
    def map(
        self, function: Callable[[T], R], *, name: str | None = ..., parallelism: int | None = ...
    ) -> DataStream[R]: ...
    def map(self, function: Any, *, name: str | None = None, parallelism: int | None = None) -> DataStream[Any]:
        """One record in, one out.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3]).map(lambda x: x * 10).print()
        >>> _ = env.submit()
        10
        20
        30
        """
        return self._stream(OperatorKind.MAP, function, name, parallelism)

    def filter(
        self,
        function: Callable[[T], object]
        | FilterFunction[T]
        | type[FilterFunction[T]]
        | BaseFunction
        | type[BaseFunction],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> DataStream[T]:
        """Keep the records for which the function is true.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection(range(6)).filter(lambda x: x % 2).print()
        >>> _ = env.submit()
        1
        3
        5
        """
        return self._stream(OperatorKind.FILTER, function, name, parallelism)

    @overload
    def flat_map(
        self,
        function: FlatMapFunction[T, R] | type[FlatMapFunction[T, R]],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self, function: BaseFunction | type[BaseFunction], *, name: str | None = ..., parallelism: int | None = ...
    ) -> DataStream[Any]: ...
    @overload
    def flat_map(
        self, function: Callable[[T], Iterable[R] | None], *, name: str | None = ..., parallelism: int | None = ...
    ) -> DataStream[R]: ...
    def flat_map(self, function: Any, *, name: str | None = None, parallelism: int | None = None) -> DataStream[Any]:
        """One record in, any number out: the function returns a list, yields, or returns None for nothing.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection(["a b", "c"]).flat_map(str.split).print()
        >>> _ = env.submit()
        a
        b
        c
        """
        return self._stream(OperatorKind.FLAT_MAP, function, name, parallelism)

    flatmap = flat_map

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
        """
        spec = FunctionSpec.checked(key, OperatorKind.KEY_BY, Origin.of_caller())
        return KeyedStream(self._env, self._node, spec)

    keyby = key_by

    def reduce(
        self,
        function: Callable[[T, T], T] | ReduceFunction[T] | type[ReduceFunction[T]] | BaseFunction | type[BaseFunction],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> DataStream[T]:
        """Fold the records, of each key on a keyed stream and of all otherwise, and emit every intermediate result.

        As Flink's rolling reduce: the first record of a key goes out as it is. Without keys it runs in one subtask.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3, 4]).key_by(lambda x: x % 2).reduce(lambda a, b: a + b).print()
        >>> _ = env.submit()
        1
        2
        4
        6
        """
        if self._key is None and parallelism not in (None, 1):
            raise PipelineError(
                f"reduce without keys cannot run in parallel ({Origin.of_caller()})",
                cause=f"parallelism={parallelism} was asked for, but all records are folded into one",
                hint="call key_by(...) first",
            )
        return self._stream(OperatorKind.REDUCE, function, name, 1 if self._key is None else parallelism)

    @overload
    def process(
        self,
        function: ProcessFunction[T, R] | type[ProcessFunction[T, R]],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: Callable[[T, ProcessContext, Collector[R]], None],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
    ) -> DataStream[R]: ...
    def process(self, function: Any, *, name: str | None = None, parallelism: int | None = None) -> DataStream[Any]:
        """The general operator: a ProcessFunction, or a function of record, ProcessContext and Collector.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> def repeat(word, context, out):
        ...     for _ in range(2):
        ...         out.collect(word)
        >>> _ = env.from_collection(["tick"]).process(repeat).print()
        >>> _ = env.submit()
        tick
        tick
        """
        return self._stream(OperatorKind.PROCESS, function, name, parallelism)

    def union(self, *others: DataStream[T], name: str | None = None, parallelism: int | None = None) -> DataStream[T]:
        """All records of these streams; the order between the streams is not defined."""
        origin = Origin.of_caller()
        streams = (self, *others)
        if any(stream._env is not self._env for stream in streams):
            raise PipelineError(f"union mixes streams of different environments ({origin})")
        edges = tuple(LogicalEdge(stream._node.index) for stream in streams)
        node = self._env._graph.add(
            OperatorKind.UNION,
            name=name,
            function=None,
            inputs=edges,
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
        )
        return DataStream(self._env, node)

    def sink(
        self,
        function: Callable[[T], object] | SinkFunction[T] | type[SinkFunction[T]] | BaseFunction | type[BaseFunction],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> DataStreamSink:
        """End the stream: hand every record to a function. What it returns is ignored.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1, 2]).sink(seen.append)
        >>> _ = env.submit()
        >>> seen
        [1, 2]
        """
        if function is builtins.print:
            return self._printed("", name, parallelism)
        return DataStreamSink(self._env, self._add(OperatorKind.SINK, function, name, parallelism))

    def print(self, prefix: str = "", *, name: str | None = None, parallelism: int | None = None) -> DataStreamSink:
        """Write each record as a plain line to stdout, after `prefix`."""
        return self._printed(prefix, name or "print", parallelism)

    def _printed(self, prefix: str, name: str | None, parallelism: int | None) -> DataStreamSink:
        return DataStreamSink(self._env, self._add(OperatorKind.SINK, PrintSink(prefix), name, parallelism))

    def _stream(self, kind: OperatorKind, function: Any, name: str | None, parallelism: int | None) -> DataStream[Any]:
        return DataStream(self._env, self._add(kind, function, name, parallelism))

    def _add(self, kind: OperatorKind, function: Any, name: str | None, parallelism: int | None) -> LogicalNode:
        origin = Origin.of_caller()
        return self._env._graph.add(
            kind,
            name=name,
            function=FunctionSpec.checked(function, kind, origin),
            inputs=(LogicalEdge(self._node.index, self._key),),
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
        )


class KeyedStream(DataStream[T], Generic[K, T]):
    """A stream whose next operator sees all records of a key in one subtask."""


class DataStreamSink:
    """The end of a stream. Give it to `env.submit(pipeline)` to run what leads to it."""

    __slots__ = ("_env", "_node")

    def __init__(self, env: LocalEnvironment, node: LogicalNode) -> None:
        self._env = env
        self._node = node

    @property
    def env(self) -> LocalEnvironment:
        return self._env

    @property
    def name(self) -> str:
        return self._node.name


class PrintSink(SinkFunction[object]):
    """Writes lines to the stdout of the moment at which the job starts; each line in one piece."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def open(self, context: object) -> None:
        self._stdout = sys.stdout

    def execute(self, value: object) -> None:
        self._stdout.write(f"{self._prefix}{value}\n")

    def flush(self) -> None:
        self._stdout.flush()

    def close(self) -> None:
        self._stdout.flush()

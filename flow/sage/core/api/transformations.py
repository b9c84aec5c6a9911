"""Operators that take one record after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from sage.common.errors import PipelineError
from sage.core.api.asynchronous import AsyncMixin
from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.functions import (
    Collector,
    FilterFunction,
    FlatMapFunction,
    MapFunction,
    ProcessContext,
    ProcessFunction,
    ReduceFunction,
)
from sage.core.api.options import OperatorOptions
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionSpec, OperatorKind
from sage.core.runtime.operators.process import ProcessFactory

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

__all__ = ["TransformationsMixin"]

T = TypeVar("T")
R = TypeVar("R")


class TransformationsMixin(AsyncMixin[T]):
    """The methods of DataStream that transform records."""

    @overload
    def map(
        self, function: MapFunction[T, R] | type[MapFunction[T, R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def map(
        self, function: BaseFunction | type[BaseFunction], **options: Unpack[OperatorOptions]
    ) -> DataStream[Any]: ...
    @overload
    def map(
        self, function: Callable[[T], Coroutine[Any, Any, R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def map(self, function: Callable[[T], R], **options: Unpack[OperatorOptions]) -> DataStream[R]: ...
    def map(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
        """One record in, one out. An async function has many records in flight, in order: see `async_map`.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3]).map(lambda x: x * 10).print()
        >>> _ = env.submit()
        10
        20
        30
        """
        return self._each(OperatorKind.MAP, function, name, parallelism, uid)

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
        uid: str | None = None,
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
        return self._each(OperatorKind.FILTER, function, name, parallelism, uid)

    @overload
    def flat_map(
        self, function: FlatMapFunction[T, R] | type[FlatMapFunction[T, R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self, function: BaseFunction | type[BaseFunction], **options: Unpack[OperatorOptions]
    ) -> DataStream[Any]: ...
    @overload
    def flat_map(
        self, function: Callable[[T], Iterable[R] | None], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self, function: Callable[[T], Coroutine[Any, Any, Iterable[R] | None]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self, function: Callable[[T], AsyncIterator[R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    def flat_map(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
        """One record in, any number out: the function returns a list, yields, or returns None for nothing.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection(["a b", "c"]).flat_map(str.split).print()
        >>> _ = env.submit()
        a
        b
        c
        """
        return self._each(OperatorKind.FLAT_MAP, function, name, parallelism, uid)

    flatmap = flat_map

    def reduce(
        self,
        function: Callable[[T, T], T] | ReduceFunction[T] | type[ReduceFunction[T]] | BaseFunction | type[BaseFunction],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
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
        wanted = self._single(parallelism, "reduce", "all records are folded into one")
        return self._plain(self._add(OperatorKind.REDUCE, function, name, wanted, uid))

    @overload
    def process(
        self, function: ProcessFunction[T, R] | type[ProcessFunction[T, R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: Callable[[T, ProcessContext, Collector[R]], object],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    def process(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
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
        spec = FunctionSpec.checked(function, OperatorKind.PROCESS, Origin.of_caller(), asynchronous=True)
        if spec.is_async:
            return self._async(spec, name or "process", parallelism, uid)
        factory = ProcessFactory(spec, keyed=False)
        return self._operator(name or "process", factory, label=spec.label(), parallelism=parallelism, uid=uid)

    def _single(self, parallelism: int | None, what: str, why: str) -> int | None:
        """The parallelism of an operator that without keys sees all records: 1. Raises PipelineError for more."""
        if self._key is not None:
            return parallelism
        if parallelism not in (None, 1):
            raise PipelineError(
                f"{what} without keys cannot run in parallel ({Origin.of_caller()})",
                cause=f"parallelism={parallelism} was asked for, but {why}",
                hint="call key_by(...) first",
            )
        return 1

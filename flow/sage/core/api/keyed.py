"""Operators of keyed streams: their state belongs to the record's key."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from sage.core.api.fields import FieldFold
from sage.core.api.function.contexts import KeyedProcessContext
from sage.core.api.function.functions import AggregateFunction, Collector, ProcessFunction
from sage.core.api.function.process_functions import KeyedProcessFunction
from sage.core.api.options import OperatorOptions, checked_options
from sage.core.api.stream import Stream
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, OperatorKind
from sage.core.runtime.operators.aggregate import AggregateFactory, CountFactory
from sage.core.runtime.operators.process import ProcessFactory

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

__all__ = ["KeyedMixin"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")
ACC = TypeVar("ACC")


class KeyedMixin(Stream[T], Generic[K, T]):
    """The methods that only KeyedStream has."""

    @overload
    def process(
        self,
        function: KeyedProcessFunction[K, T, R] | type[KeyedProcessFunction[K, T, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def process(
        self, function: ProcessFunction[T, R] | type[ProcessFunction[T, R]], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def process(
        self, function: Callable[[T, KeyedProcessContext, Collector[R]], object], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    def process(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
        """The general operator: a KeyedProcessFunction, with state and timers of the record's key.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import KeyedProcessFunction
        >>> from sage.core.api.state import ValueStateDescriptor
        >>> class Total(KeyedProcessFunction):
        ...     def open(self, context):
        ...         self.total = context.get_state(ValueStateDescriptor("total", 0))
        ...     def process_element(self, value, context, out):
        ...         self.total.update(self.total.value() + value)
        ...         out.collect((context.get_current_key(), self.total.value()))
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3, 4]).key_by(lambda x: x % 2).process(Total).print()
        >>> _ = env.submit()
        (1, 1)
        (0, 2)
        (1, 4)
        (0, 6)
        """
        spec = self._checked(function, FunctionKind.KEYED_PROCESS)
        factory = ProcessFactory(spec, keyed=True)
        return self._operator(name or "process", factory, label=spec.label(), parallelism=parallelism, uid=uid)

    def aggregate(
        self,
        function: AggregateFunction[T, ACC, R] | type[AggregateFunction[T, ACC, R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[R]:
        """Fold the records of each key into an accumulator, and emit the result after every record.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import AggregateFunction
        >>> class Mean(AggregateFunction):
        ...     def create_accumulator(self):
        ...         return (0, 0)
        ...     def add(self, value, accumulator):
        ...         return (accumulator[0] + value, accumulator[1] + 1)
        ...     def get_result(self, accumulator):
        ...         return accumulator[0] / accumulator[1]
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3, 4]).key_by(lambda x: x % 2).aggregate(Mean).print()
        >>> _ = env.submit()
        1.0
        2.0
        2.0
        3.0
        """
        spec = self._checked(function, FunctionKind.AGGREGATE)
        factory = AggregateFactory(spec)
        return self._operator(name or "aggregate", factory, label=spec.label(), parallelism=parallelism, uid=uid)

    def count(
        self, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[tuple[K, int]]:
        """How many records each key has had so far: (key, number) after every record.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection(list("abca")).key_by(lambda c: c).count().print()
        >>> _ = env.submit()
        ('a', 1)
        ('b', 1)
        ('c', 1)
        ('a', 2)
        """
        return self._operator(name or "count", CountFactory(), parallelism=parallelism, uid=uid)

    def sum(self, field: int | str | None = None, **options: Unpack[OperatorOptions]) -> DataStream[T]:
        """The sum so far of each key's records, after every record.

        With `field` (a position, key or attribute of the records) only that is summed, in the first record of the key
        (as Flink's KeyedStream.sum): records are tuples, lists, dicts or dataclasses.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([("a", 1), ("b", 5), ("a", 2)]).key_by(lambda r: r[0]).sum(1).print()
        >>> _ = env.submit()
        ('a', 1)
        ('b', 5)
        ('a', 3)
        """
        return self._folded("sum", operator.add, field, options)

    def min(self, field: int | str | None = None, **options: Unpack[OperatorOptions]) -> DataStream[T]:
        """The least so far of each key's records, after every record; `field` as in `sum`.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([3, 1, 2]).key_by(lambda x: 0).min().print()
        >>> _ = env.submit()
        3
        1
        1
        """
        return self._folded("min", min, field, options)

    def max(self, field: int | str | None = None, **options: Unpack[OperatorOptions]) -> DataStream[T]:
        """The greatest so far of each key's records, after every record; `field` as in `sum`.

        >>> from sage.core.api import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([{"v": 1}, {"v": 3}, {"v": 2}]).key_by(lambda x: 0).max("v").print()
        >>> _ = env.submit()
        {'v': 1}
        {'v': 3}
        {'v': 3}
        """
        return self._folded("max", max, field, options)

    def _folded(
        self, name: str, fold: Callable[[Any, Any], Any], field: int | str | None, options: OperatorOptions
    ) -> DataStream[Any]:
        checked_options(options, name)
        function = fold if field is None else FieldFold(fold, field, Origin.of_caller())
        node = self._add(
            OperatorKind.REDUCE,
            function,
            options.get("name") or name,
            options.get("parallelism"),
            options.get("uid"),
        )
        return self._plain(node)

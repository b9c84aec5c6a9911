"""Two streams that one function sees together (PyFlink's ConnectedStreams)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.co_functions import CoFlatMapFunction, CoMapFunction
from sage.core.api.function.functions import KeyByFunction, MapFunction
from sage.core.api.function.process_functions import CoProcessFunction, KeyedCoProcessFunction
from sage.core.api.function.window_functions import JoinFunction
from sage.core.api.options import OperatorOptions
from sage.core.api.units import parse_duration
from sage.core.graph.origin import Origin
from sage.core.graph.roles import role_of
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind
from sage.core.runtime.operators.co_process import CoFactory
from sage.core.runtime.operators.regular_join import JoinFactory

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.core.runtime.operators.base import OperatorFactory

__all__ = ["ConnectedStreams", "KeyedConnectedStreams"]

T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class ConnectedStreams(Generic[T1, T2]):
    """Two streams, of records of type T1 and T2, as `stream.connect(other)` makes them.

    The order in which records of the two come is not defined; records of one keep their order.
    """

    def __init__(self, first: DataStream[T1], second: DataStream[T2]) -> None:
        self._first = first
        self._second = second

    @overload
    def map(
        self,
        function: CoMapFunction[T1, T2, R] | type[CoMapFunction[T1, T2, R]],
        second: None = ...,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: MapFunction[T1 | T2, R] | type[MapFunction[T1 | T2, R]],
        second: None = ...,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def map(
        self, function: Callable[[T1], R], second: Callable[[T2], R], **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    @overload
    def map(
        self, function: Callable[[T1 | T2], R], second: None = ..., **options: Unpack[OperatorOptions]
    ) -> DataStream[R]: ...
    def map(
        self,
        function: Any,
        second: Any = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[Any]:
        """One record of either stream in, one out: a CoMapFunction, a function for each stream, or one for both.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> numbers, words = env.from_collection([1, 2]), env.from_collection(["a"])
        >>> _ = numbers.connect(words).map(lambda n: n * 10, lambda w: w.upper()).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen, key=str)
        [10, 20, 'A']
        """
        functions = self._functions(FunctionKind.CO_MAP, OperatorKind.MAP, function, second)
        return self._co(FunctionKind.CO_MAP, functions, name, parallelism, uid)

    comap = map  # noqa: A003 - the method above is meant

    @overload
    def flat_map(
        self,
        function: CoFlatMapFunction[T1, T2, R] | type[CoFlatMapFunction[T1, T2, R]],
        second: None = ...,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self,
        function: Callable[[T1], Iterable[R] | None],
        second: Callable[[T2], Iterable[R] | None],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self,
        function: Callable[[T1 | T2], Iterable[R] | None],
        second: None = ...,
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    def flat_map(
        self,
        function: Any,
        second: Any = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[Any]:
        """One record of either stream in, any number out: a CoFlatMapFunction, or functions as in `map`.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> numbers, words = env.from_collection([2]), env.from_collection(["a b"])
        >>> _ = numbers.connect(words).flat_map(range, str.split).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen, key=str)
        [0, 1, 'a', 'b']
        """
        functions = self._functions(FunctionKind.CO_FLAT_MAP, OperatorKind.FLAT_MAP, function, second)
        return self._co(FunctionKind.CO_FLAT_MAP, functions, name, parallelism, uid)

    flatmap = flat_map
    co_flat_map = flat_map

    def process(
        self,
        function: CoProcessFunction[T1, T2, R] | type[CoProcessFunction[T1, T2, R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[R]:
        """A CoProcessFunction: with a context, side outputs, any number of records out.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import CoProcessFunction
        >>> class Tagged(CoProcessFunction):
        ...     def process_element1(self, value, context, out):
        ...         out.collect(("number", value))
        ...     def process_element2(self, value, context, out):
        ...         out.collect(("word", value))
        >>> env, seen = LocalEnvironment("example"), []
        >>> _ = env.from_collection([1]).connect(env.from_collection(["a"])).process(Tagged).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [('number', 1), ('word', 'a')]
        """
        spec = FunctionSpec.checked(function, FunctionKind.CO_PROCESS, Origin.of_caller())
        return self._co(FunctionKind.CO_PROCESS, (spec,), name, parallelism, uid)

    @overload
    def key_by(self, first: Callable[[T1], K], second: Callable[[T2], K]) -> KeyedConnectedStreams[K, T1, T2]: ...
    @overload
    def key_by(
        self,
        first: KeyByFunction[T1, K] | type[KeyByFunction[T1, K]],
        second: KeyByFunction[T2, K] | type[KeyByFunction[T2, K]],
    ) -> KeyedConnectedStreams[K, T1, T2]: ...
    @overload
    def key_by(
        self, first: BaseFunction | type[BaseFunction], second: BaseFunction | type[BaseFunction]
    ) -> KeyedConnectedStreams[Any, T1, T2]: ...
    def key_by(self, first: Any, second: Any) -> KeyedConnectedStreams[Any, T1, T2]:
        """Group both by key: records of either stream with the same key meet in one subtask, and share its state.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> users, orders = env.from_collection([(1, "Ada")]), env.from_collection([("tea", 1), ("ink", 1)])
        >>> keyed = users.connect(orders).key_by(lambda user: user[0], lambda order: order[1])
        >>> _ = keyed.join(lambda user, order: (user[1], order[0])).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [('Ada', 'ink'), ('Ada', 'tea')]
        """
        return KeyedConnectedStreams(self._first.key_by(first), self._second.key_by(second))

    keyby = key_by

    def _functions(
        self, both: FunctionKind, each: OperatorKind, function: Any, second: Any
    ) -> tuple[FunctionSpec, ...]:
        """One object with a method for each stream, or a callable for each."""
        origin = Origin.of_caller()
        if second is not None:
            return FunctionSpec.checked(function, each, origin), FunctionSpec.checked(second, each, origin)
        if hasattr(function, role_of(both).methods[0].names[0]):
            return (FunctionSpec.checked(function, both, origin),)
        spec = FunctionSpec.checked(function, each, origin)
        return spec, spec

    def _co(
        self,
        kind: FunctionKind,
        functions: tuple[FunctionSpec, ...],
        name: str | None,
        parallelism: int | None,
        uid: str | None,
    ) -> DataStream[Any]:
        label = " and ".join(dict.fromkeys(spec.label() for spec in functions))
        return self._add(name or str(kind), CoFactory(kind, functions), label, parallelism, uid)

    def _add(
        self, name: str, factory: OperatorFactory, label: str, parallelism: int | None, uid: str | None
    ) -> DataStream[Any]:
        first, second = self._first, self._second
        if (first._key is None) != (second._key is None):
            keyed, other = ("first", "second") if second._key is None else ("second", "first")
            raise PipelineError(
                f"connect: the {keyed} stream has keys and the {other} has none ({Origin.of_caller()})",
                cause="records of the two must meet by key, or by nothing",
                hint="call key_by(...) on both, or on connect(...)",
            )
        return first._operator(name, factory, second, label=label, parallelism=parallelism, uid=uid)


class KeyedConnectedStreams(ConnectedStreams[T1, T2], Generic[K, T1, T2]):
    """Two streams keyed alike: functions have state and timers of the key of either's record."""

    @overload
    def process(
        self,
        function: KeyedCoProcessFunction[K, T1, T2, R] | type[KeyedCoProcessFunction[K, T1, T2, R]],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
        uid: str | None = ...,
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: CoProcessFunction[T1, T2, R] | type[CoProcessFunction[T1, T2, R]],
        *,
        name: str | None = ...,
        parallelism: int | None = ...,
        uid: str | None = ...,
    ) -> DataStream[R]: ...
    def process(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
        """A KeyedCoProcessFunction: with keyed state and timers.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import KeyedCoProcessFunction
        >>> class Paid(KeyedCoProcessFunction):
        ...     def process_element1(self, order, context, out):
        ...         context.timer_service().register_event_time_timer(5)
        ...     def process_element2(self, payment, context, out):
        ...         context.timer_service().delete_event_time_timer(5)
        ...     def on_timer(self, timestamp, context, out):
        ...         out.collect(f"order {context.get_current_key()}: due at {timestamp}")
        >>> env = LocalEnvironment("example")
        >>> orders, payments = env.from_collection([1, 1]), env.from_collection([])
        >>> same = lambda number: number
        >>> _ = orders.connect(payments).key_by(same, same).process(Paid).print()
        >>> _ = env.submit()
        order 1: due at 5
        """
        spec = FunctionSpec.checked(function, FunctionKind.KEYED_CO_PROCESS, Origin.of_caller())
        return self._co(FunctionKind.KEYED_CO_PROCESS, (spec,), name, parallelism, uid)

    def join(
        self,
        function: Callable[[T1, T2], R] | JoinFunction[T1, T2, R] | type[JoinFunction[T1, T2, R]],
        *,
        ttl: object = None,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[R]:
        """Call the function for every pair of records of one key, whenever they come (SQL's inner join).

        All records are kept, or for as long as `ttl` ("1h", milliseconds) after the key's last one: without it the
        state grows with the streams. Joins over windows or intervals keep less: see `DataStream.join` and
        `KeyedStream.interval_join`.

        >>> from sage.core.api import LocalEnvironment
        >>> env, seen = LocalEnvironment("example"), []
        >>> left, right = env.from_collection([1, 2, 3]), env.from_collection([10, 20])
        >>> keyed = left.connect(right).key_by(lambda n: n % 2, lambda n: n % 2)
        >>> _ = keyed.join(lambda a, b: a + b).sink(seen.append)
        >>> _ = env.submit()
        >>> sorted(seen)
        [12, 22]
        """
        origin = Origin.of_caller()
        spec = FunctionSpec.checked(function, FunctionKind.JOIN, origin)
        try:
            ttl_ms = None if ttl is None else int(parse_duration(ttl) * 1000)
        except ValueError as error:
            raise PipelineError(f"join: ttl is no duration ({origin})", cause=str(error)) from error
        return self._add(name or "join", JoinFactory(spec, ttl_ms), spec.label(), parallelism, uid)

"""Streams that every subtask sees whole, beside another one (PyFlink's BroadcastStream, BroadcastConnectedStream)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from sage.common.errors import PipelineError
from sage.core.api.function.broadcast_functions import BroadcastProcessFunction, KeyedBroadcastProcessFunction
from sage.core.api.options import OperatorOptions
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec
from sage.core.runtime.operators.broadcast import BroadcastFactory

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.core.api.state import MapStateDescriptor

__all__ = ["BroadcastConnectedStream", "BroadcastStream"]

T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")


class BroadcastStream(Generic[T2]):
    """A stream that every subtask of an operator sees whole, and the states that it feeds: `stream.broadcast(…)`."""

    def __init__(self, stream: DataStream[T2], descriptors: tuple[MapStateDescriptor[Any, Any], ...]) -> None:
        self._stream = stream
        self._states = tuple(descriptor.name for descriptor in descriptors)


class BroadcastConnectedStream(Generic[T1, T2]):
    """A stream and a broadcast one: `stream.connect(broadcast)`."""

    def __init__(self, stream: DataStream[T1], broadcast: BroadcastStream[T2]) -> None:
        self._first = stream
        self._broadcast = broadcast

    @overload
    def process(
        self,
        function: BroadcastProcessFunction[T1, T2, R] | type[BroadcastProcessFunction[T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: KeyedBroadcastProcessFunction[Any, T1, T2, R] | type[KeyedBroadcastProcessFunction[Any, T1, T2, R]],
        **options: Unpack[OperatorOptions],
    ) -> DataStream[R]: ...
    def process(
        self, function: Any, *, name: str | None = None, parallelism: int | None = None, uid: str | None = None
    ) -> DataStream[Any]:
        """A BroadcastProcessFunction, or a KeyedBroadcastProcessFunction when the stream has keys.

        >>> from sage.core.api import LocalEnvironment
        >>> from sage.core.api.function import BroadcastProcessFunction
        >>> from sage.core.api.state import MapStateDescriptor
        >>> rules = MapStateDescriptor("rules")
        >>> class Apply(BroadcastProcessFunction):
        ...     def process_element(self, value, context, out):
        ...         limit = context.get_broadcast_state(rules).get("limit")
        ...         out.collect((value, limit is None or value <= limit))
        ...     def process_broadcast_element(self, rule, context, out):
        ...         context.get_broadcast_state(rules).put("limit", rule)
        >>> env, seen = LocalEnvironment("example"), []
        >>> limits = env.from_collection([]).broadcast(rules)
        >>> _ = env.from_collection([1, 2]).connect(limits).process(Apply).print()
        >>> _ = env.submit()
        (1, True)
        (2, True)
        """
        keyed = self._first._key is not None
        kind = FunctionKind.KEYED_BROADCAST_PROCESS if keyed else FunctionKind.BROADCAST_PROCESS
        spec = FunctionSpec.checked(function, kind, Origin.of_caller())
        if keyed is not _wants_keys(function):
            wanted, need = ("KeyedBroadcastProcessFunction", "has") if keyed else ("BroadcastProcessFunction", "has no")
            raise PipelineError(
                f"process: this stream takes a {wanted} ({Origin.of_caller()})",
                cause=f"{spec.label()} is none, and the stream that is not broadcast {need} keys",
            )
        return self._first._operator(
            name or "broadcast_process",
            BroadcastFactory(spec, self._broadcast._states, keyed),
            self._broadcast._stream,
            label=spec.label(),
            parallelism=parallelism,
            uid=uid,
        )


def _wants_keys(function: Any) -> bool:
    owner = function if isinstance(function, type) else type(function)
    return issubclass(owner, KeyedBroadcastProcessFunction)

"""What all streams share: the place in the graph, and how operators are added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.elsewhere import STREAMS, Elsewhere
from sage.core.graph.logical import LogicalEdge, LogicalNode
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind, Partitioning, checked_parallelism

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream
    from sage.core.api.local_environment import LocalEnvironment
    from sage.core.runtime.operators.base import OperatorFactory

__all__ = ["DataStreamSink", "Stream"]

T = TypeVar("T")


class Stream(Elsewhere, Generic[T]):
    """An output of an operator, the key by which the next one is to be partitioned, and the user's hints for that."""

    elsewhere = STREAMS

    def __init__(
        self,
        env: LocalEnvironment,
        node: LogicalNode,
        key: FunctionSpec | None = None,
        *,
        tag: str | None = None,
        partitioning: Partitioning | None = None,
    ) -> None:
        self._env = env
        self._node = node
        self._key = key
        self._tag = tag
        self._partitioning = partitioning

    @property
    def env(self) -> LocalEnvironment:
        """The environment that this stream belongs to."""
        return self._env

    @property
    def name(self) -> str:
        """The name of the operator that makes this stream."""
        return self._node.name

    def _edge(self, port: int = 0) -> LogicalEdge:
        """The edge to input `port` of an operator that reads this stream."""
        return LogicalEdge(self._node.index, self._key, port, self._tag, self._partitioning)

    def _operator(
        self,
        name: str,
        factory: OperatorFactory,
        *others: Stream[Any],
        label: str = "",
        parallelism: int | None = None,
        uid: str | None = None,
        origin: Origin | None = None,
    ) -> DataStream[Any]:
        """Add an operator: this stream is its input 0, `others` are inputs 1, 2, …; each with its own key.

        `factory` makes the runtime's `Operator` in each subtask; `label` says in `explain()` what it does. The hook
        for windows, joins, async calls and connectors.
        """
        node = self._operator_node(
            OperatorKind.OPERATOR, name, factory, others, label=label, parallelism=parallelism, uid=uid, origin=origin
        )
        return self._plain(node)

    def _operator_sink(
        self,
        name: str,
        factory: OperatorFactory,
        *,
        label: str = "",
        parallelism: int | None = None,
        uid: str | None = None,
        origin: Origin | None = None,
    ) -> DataStreamSink:
        """As `_operator`, for one that ends the stream."""
        node = self._operator_node(
            OperatorKind.SINK, name, factory, (), label=label, parallelism=parallelism, uid=uid, origin=origin
        )
        return DataStreamSink(self._env, node)

    def _operator_node(
        self,
        kind: OperatorKind,
        name: str,
        factory: OperatorFactory,
        others: tuple[Stream[Any], ...],
        *,
        label: str,
        parallelism: int | None,
        uid: str | None,
        origin: Origin | None,
    ) -> LogicalNode:
        origin = origin or Origin.of_caller()
        for other in others:
            self._same_environment(other, name, origin)
        return self._env._graph.add(
            kind,
            name=name,
            function=None,
            inputs=(self._edge(), *(other._edge(port) for port, other in enumerate(others, 1))),
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
            factory=factory,
            label=label,
            uid=uid,
        )

    def _add(
        self,
        kind: OperatorKind,
        function: Any,
        name: str | None,
        parallelism: int | None,
        uid: str | None,
    ) -> LogicalNode:
        """Add an operator that is a call for each record."""
        origin = Origin.of_caller()
        return self._env._graph.add(
            kind,
            name=name,
            function=FunctionSpec.checked(function, kind, origin),
            inputs=(self._edge(),),
            parallelism=checked_parallelism(parallelism, origin),
            origin=origin,
            uid=uid,
        )

    def _checked(self, function: Any, kind: OperatorKind | FunctionKind) -> FunctionSpec:
        """The user's function for an operator of `_operator`. Raises PipelineError with the user's line."""
        return FunctionSpec.checked(function, kind, Origin.of_caller())

    def _plain(self, node: LogicalNode) -> DataStream[Any]:
        from sage.core.api.datastream import DataStream

        return DataStream(self._env, node)

    def _same_environment(self, other: Stream[Any], what: str, origin: Origin) -> None:
        if not isinstance(other, Stream):
            raise PipelineError(f"{what} needs a stream ({origin})", cause=f"got {other!r:.80}")
        if other._env is not self._env:
            raise PipelineError(f"{what} mixes streams of different environments ({origin})")


class DataStreamSink:
    """The end of a stream. Give it to `env.submit(pipeline)` to run what leads to it."""

    __slots__ = ("_env", "_node")

    def __init__(self, env: LocalEnvironment, node: LogicalNode) -> None:
        self._env = env
        self._node = node

    @property
    def env(self) -> LocalEnvironment:
        """The environment that this pipeline belongs to."""
        return self._env

    @property
    def name(self) -> str:
        """The operator's name."""
        return self._node.name

"""The logical graph: the operators as the user wrote them, in the order in which they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage.common.errors import PipelineError
from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceSpec
from sage.core.graph.spec import FunctionSpec, OperatorKind, Partitioning

if TYPE_CHECKING:
    from sage.core.runtime.operators.base import OperatorFactory

__all__ = ["LogicalEdge", "LogicalGraph", "LogicalNode"]


@dataclass(slots=True, frozen=True)
class LogicalEdge:
    """From an operator to an input of the next one.

    With a key selector, records of one key go to one subtask. `port` is the number of the input (operators of several
    inputs); `tag` names a side output of the source, None is its main output. `partitioning` is what the user asked
    for; None: forward where that is possible.
    """

    source: int
    key: FunctionSpec | None = None
    port: int = 0
    tag: str | None = None
    partitioning: Partitioning | None = None


@dataclass(slots=True)
class LogicalNode:
    """One operator. `name` is unique in the graph; `parallelism` is None where the environment's applies.

    `uid` identifies its state in checkpoints: a hash of the uid that the user gave, or of what the operator is and what
    stands upstream. `factory` is set for OPERATOR (and for a SINK that is one); `label` says in `explain()` what such
    an operator does. `is_sink`: nothing comes out.
    """

    index: int
    kind: OperatorKind
    name: str
    uid: str
    function: FunctionSpec | None
    inputs: tuple[LogicalEdge, ...]
    parallelism: int | None
    origin: Origin
    source: SourceSpec | None = None
    factory: OperatorFactory | None = None
    label: str = ""
    given_uid: str | None = None

    @property
    def is_sink(self) -> bool:
        return self.kind is OperatorKind.SINK

    @property
    def ports(self) -> int:
        """How many inputs the operator tells apart."""
        return max((edge.port for edge in self.inputs), default=-1) + 1


@dataclass(slots=True)
class LogicalGraph:
    """Nodes only ever refer to earlier ones, so their order is topological; what goes back stands in `feedback`."""

    nodes: list[LogicalNode] = field(default_factory=list)
    feedback: list[tuple[int, int]] = field(default_factory=list)  # ends of loops, and the futures that they fill

    def add(
        self,
        kind: OperatorKind,
        *,
        name: str | None,
        function: FunctionSpec | None,
        inputs: tuple[LogicalEdge, ...],
        parallelism: int | None,
        origin: Origin,
        source: SourceSpec | None = None,
        factory: OperatorFactory | None = None,
        label: str = "",
        uid: str | None = None,
    ) -> LogicalNode:
        """Append an operator; a name that is taken gets a number: `map`, `map-2`.

        Raises PipelineError for a `uid` that is empty or taken.
        """
        unique = self._unique(str(name or kind).replace("\0", ""))
        node = LogicalNode(
            index=len(self.nodes),
            kind=kind,
            name=unique,
            uid=self._derived(kind, unique, inputs) if uid is None else self._given(uid, unique, origin),
            function=function,
            inputs=inputs,
            parallelism=parallelism,
            origin=origin,
            source=source,
            factory=factory,
            label=label,
            given_uid=uid,
        )
        self.nodes.append(node)
        return node

    def component(self, indices: Iterable[int]) -> set[int]:
        """These nodes and everything connected with them, upstream or downstream."""
        neighbours: dict[int, set[int]] = {node.index: set() for node in self.nodes}
        for node in self.nodes:
            for edge in node.inputs:
                neighbours[node.index].add(edge.source)
                neighbours[edge.source].add(node.index)
        for end, future in self.feedback:
            neighbours[end].add(future)
            neighbours[future].add(end)
        found: set[int] = set()
        waiting = list(indices)
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting.extend(neighbours[index] - found)
        return found

    def _unique(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}-{number}"
        return candidate

    def _derived(self, kind: OperatorKind, name: str, inputs: tuple[LogicalEdge, ...]) -> str:
        """Stable over runs of the same program: made of kind, name and what stands upstream."""
        return _hashed(str(kind), name, *(self.nodes[edge.source].uid for edge in inputs))

    def _given(self, uid: object, name: str, origin: Origin) -> str:
        """Stable as long as the user keeps the uid, whatever else changes in the program."""
        details = {"operator": name, "file": origin.file, "line": origin.line}
        if not isinstance(uid, str) or not uid.strip():
            raise PipelineError(f"uid must be a text ({origin})", cause=f"got {uid!r:.80}", details=details)
        taken = next((node for node in self.nodes if node.given_uid == uid), None)
        if taken is not None:
            raise PipelineError(
                f"Two operators have the uid {uid!r} ({origin})",
                cause=f"{taken.name!r} has it since {taken.origin}; state in checkpoints is found by uid",
                hint="give each operator its own",
                details=details,
            )
        return _hashed("uid", uid)


def _hashed(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

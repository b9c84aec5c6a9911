"""The logical graph: the operators as the user wrote them, in the order in which they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from sage.core.graph.origin import Origin
from sage.core.graph.source import SourceSpec
from sage.core.graph.spec import FunctionSpec, OperatorKind

__all__ = ["LogicalEdge", "LogicalGraph", "LogicalNode"]


@dataclass(slots=True, frozen=True)
class LogicalEdge:
    """From an operator to the next one; with a key selector, records of one key go to one subtask."""

    source: int
    key: FunctionSpec | None = None


@dataclass(slots=True)
class LogicalNode:
    """One operator. `name` is unique in the graph; `parallelism` is None where the environment's applies."""

    index: int
    kind: OperatorKind
    name: str
    uid: str
    function: FunctionSpec | None
    inputs: tuple[LogicalEdge, ...]
    parallelism: int | None
    origin: Origin
    source: SourceSpec | None = None


@dataclass(slots=True)
class LogicalGraph:
    """Nodes only ever refer to earlier ones, so their order is topological."""

    nodes: list[LogicalNode] = field(default_factory=list)

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
    ) -> LogicalNode:
        """Append an operator; a name that is taken gets a number: `map`, `map-2`."""
        unique = self._unique(str(name or kind).replace("\0", ""))
        node = LogicalNode(
            index=len(self.nodes),
            kind=kind,
            name=unique,
            uid=self._uid(kind, unique, inputs),
            function=function,
            inputs=inputs,
            parallelism=parallelism,
            origin=origin,
            source=source,
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

    def _uid(self, kind: OperatorKind, name: str, inputs: tuple[LogicalEdge, ...]) -> str:
        """Stable over runs of the same program: made of kind, name and what stands upstream."""
        parts = [str(kind), name, *(self.nodes[edge.source].uid for edge in inputs)]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

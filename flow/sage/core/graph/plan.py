"""The physical plan: which operators run fused in one task, how many subtasks each task has, what joins them.

Two operators are fused (Flink: chained) when the edge between them is a plain forward one: the same parallelism, no key
to partition by (or nothing to partition over), no partitioning that the user asked for, and a single input. A chain may
branch: a stream with two consumers hands each record to both. A side output is an edge with a tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sage.common.errors import PipelineError
from sage.core.graph.logical import LogicalEdge, LogicalGraph, LogicalNode
from sage.core.graph.spec import FunctionSpec, OperatorKind, Partitioning

__all__ = ["PhysicalEdge", "PhysicalOperator", "PhysicalPlan", "TaskPlan", "build_plan"]

MAX_FUSED = 64  # operators in one generated function
MAX_LOOPS = 12  # nested loops in it (flat_map); Python allows 20 blocks


@dataclass(slots=True)
class PhysicalOperator:
    """An operator inside a task; children are fused to it, outputs are numbers of edges that leave the task.

    `keys` has the key selector of each input (port), None for one without keys. `tag` is the parent's side output that
    feeds a fused operator (None: the main one); `side_outputs` are the tags of its own that anybody reads.
    """

    node: LogicalNode
    keys: list[FunctionSpec | None] = field(default_factory=list)
    tag: str | None = None
    children: list[PhysicalOperator] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    side_outputs: set[str] = field(default_factory=set)
    loops: int = 0

    @property
    def key(self) -> FunctionSpec | None:
        """The key selector of the first input."""
        return self.keys[0] if self.keys else None

    def key_of(self, port: int) -> FunctionSpec | None:
        """The key selector of an input."""
        return self.keys[port] if port < len(self.keys) else None

    @property
    def is_keyed(self) -> bool:
        """Whether any input has keys: then there is keyed state."""
        return any(key is not None for key in self.keys)

    def walk(self) -> Iterator[PhysicalOperator]:
        """This operator and all that are fused below it, in the order in which they run."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(slots=True)
class PhysicalEdge:
    """Between two tasks: from an operator's output `tag` (None: the main one) to input `port` of the target's head."""

    index: int
    source: int
    target: int
    partitioning: Partitioning
    key: FunctionSpec | None
    port: int = 0
    tag: str | None = None


@dataclass(slots=True)
class TaskPlan:
    """A chain of operators and the number of its parallel subtasks."""

    index: int
    head: PhysicalOperator
    parallelism: int

    @property
    def name(self) -> str:
        return " → ".join(operator.node.name for operator in self.head.walk())


@dataclass(slots=True)
class PhysicalPlan:
    """Tasks in topological order, and the edges between them. `feedback`: the ends of loops, and where they go back to,
    by the numbers of their nodes; these are no channels."""

    tasks: list[TaskPlan]
    edges: list[PhysicalEdge]
    feedback: list[tuple[int, int]] = field(default_factory=list)

    @property
    def bounded(self) -> bool:
        """True when every source is known to end."""
        return all(node.source.bounded for node in (task.head.node for task in self.tasks) if node.source is not None)

    def operators(self) -> Iterator[PhysicalOperator]:
        for task in self.tasks:
            yield from task.head.walk()

    def task_of(self, node: int) -> TaskPlan:
        """The task in which a node runs."""
        return next(task for task in self.tasks if any(operator.node.index == node for operator in task.head.walk()))

    def dangling(self) -> list[LogicalNode]:
        """Operators whose results go nowhere."""
        return [
            operator.node
            for operator in self.operators()
            if not operator.children and not operator.outputs and not operator.node.is_sink
        ]


def build_plan(
    graph: LogicalGraph, selected: Iterable[int], parallelism: int, *, chaining: bool = True
) -> PhysicalPlan:
    """Plan the selected nodes (closed under inputs). Raises PipelineError when there is nothing to run."""
    builder = _Builder(parallelism, chaining)
    chosen = set(selected)
    for node in graph.nodes:
        if node.index in chosen:
            builder.place(node)
    if not builder.tasks:
        raise PipelineError(
            "There is nothing to run",
            cause="no pipeline was built since the last submit()",
            hint="start one with env.from_collection(...) and end it with .print() or .sink(...)",
        )
    return PhysicalPlan(builder.tasks, builder.edges, [pair for pair in graph.feedback if pair[0] in chosen])


class _Builder:
    def __init__(self, parallelism: int, chaining: bool) -> None:
        self.parallelism = parallelism
        self.chaining = chaining
        self.tasks: list[TaskPlan] = []
        self.edges: list[PhysicalEdge] = []
        self._placed: dict[int, tuple[TaskPlan, PhysicalOperator]] = {}

    def place(self, node: LogicalNode) -> None:
        wanted = node.parallelism or (1 if node.kind is OperatorKind.SOURCE else self.parallelism)
        operator = PhysicalOperator(node, keys=_keys(node))
        if len(node.inputs) == 1 and self._fuses(node, node.inputs[0], wanted):
            edge = node.inputs[0]
            task, parent = self._placed[edge.source]
            operator.tag = edge.tag
            if node.factory is None:  # else its children begin a function of their own
                operator.loops = parent.loops + (node.kind is OperatorKind.FLAT_MAP)
            parent.children.append(operator)
            _read(parent, edge)
        else:
            task = TaskPlan(len(self.tasks), operator, wanted)
            self.tasks.append(task)
            for edge in node.inputs:
                self._connect(edge, task)
        self._placed[node.index] = (task, operator)

    def _fuses(self, node: LogicalNode, edge: LogicalEdge, wanted: int) -> bool:
        task, parent = self._placed[edge.source]
        room = sum(1 for _ in task.head.walk()) < MAX_FUSED and parent.loops < MAX_LOOPS
        forward = task.parallelism == wanted and (edge.key is None or wanted == 1)
        asked = edge.partitioning not in (None, Partitioning.FORWARD)
        return self.chaining and room and forward and not asked and node.kind is not OperatorKind.UNION

    def _connect(self, edge: LogicalEdge, target: TaskPlan) -> None:
        task, parent = self._placed[edge.source]
        partitioning = _partitioning(edge, task, target)
        physical = PhysicalEdge(
            len(self.edges), task.index, target.index, partitioning, edge.key, port=edge.port, tag=edge.tag
        )
        self.edges.append(physical)
        parent.outputs.append(physical.index)
        _read(parent, edge)


def _keys(node: LogicalNode) -> list[FunctionSpec | None]:
    keys: list[FunctionSpec | None] = [None] * node.ports
    for edge in node.inputs:
        keys[edge.port] = edge.key
    return keys


def _read(parent: PhysicalOperator, edge: LogicalEdge) -> None:
    if edge.tag is not None:
        parent.side_outputs.add(edge.tag)


def _partitioning(edge: LogicalEdge, source: TaskPlan, target: TaskPlan) -> Partitioning:
    if edge.key is not None and target.parallelism > 1:
        return Partitioning.HASH
    if edge.partitioning is Partitioning.FORWARD and source.parallelism != target.parallelism:
        node = target.head.node
        raise PipelineError(
            f"forward() needs the same parallelism on both sides ({node.origin})",
            cause=f"{source.head.node.name!r} has {source.parallelism}, {node.name!r} has {target.parallelism}",
            hint="set parallelism= on one of them, or leave forward() out",
            details={"operator": node.name, "file": node.origin.file, "line": node.origin.line},
        )
    if edge.partitioning is not None:
        return edge.partitioning
    return Partitioning.FORWARD if source.parallelism == target.parallelism else Partitioning.REBALANCE

"""From what the user wrote to what the runtime runs: logical graph, checks, physical plan. Runs nothing itself."""

from sage.core.graph.logical import LogicalEdge, LogicalGraph, LogicalNode
from sage.core.graph.origin import Origin
from sage.core.graph.plan import PhysicalEdge, PhysicalOperator, PhysicalPlan, TaskPlan, build_plan
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind, Partitioning

__all__ = [
    "FunctionKind",
    "FunctionSpec",
    "LogicalEdge",
    "LogicalGraph",
    "LogicalNode",
    "OperatorKind",
    "Origin",
    "Partitioning",
    "PhysicalEdge",
    "PhysicalOperator",
    "PhysicalPlan",
    "TaskPlan",
    "build_plan",
]

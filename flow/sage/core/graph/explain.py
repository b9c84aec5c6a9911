"""A plan for people (text) and for programs (JSON)."""

from __future__ import annotations

import json
from typing import Any

from sage.common.errors import PipelineError
from sage.core.graph.mermaid import as_mermaid
from sage.core.graph.plan import PhysicalEdge, PhysicalOperator, PhysicalPlan, TaskPlan

__all__ = ["as_dict", "as_json", "as_text", "explained"]


def explained(name: str, plan: PhysicalPlan, format: str) -> str:  # noqa: A002 - the word for it
    """The plan as text, json or mermaid."""
    formats = {"text": as_text, "json": as_json, "mermaid": as_mermaid}
    if format not in formats:
        raise PipelineError(f"explain has no format {format!r}", cause=f"known: {', '.join(formats)}")
    return formats[format](name, plan)


def as_text(name: str, plan: PhysicalPlan) -> str:
    """One block a task: its operators, what each runs and where that stands, and where its records come from."""
    operators = sum(1 for _ in plan.operators())
    lines = [f"{name}: {_count(operators, 'operator')} in {_count(len(plan.tasks), 'task')}"]
    for task in plan.tasks:
        lines.append(f"  task {task.index + 1} × {task.parallelism}{_inputs(plan, task)}")
        lines.extend(_operator_lines(task.head, "    "))
    return "\n".join(lines)


def as_dict(name: str, plan: PhysicalPlan) -> dict[str, Any]:
    """The plan as plain JSON values."""
    return {
        "name": name,
        "bounded": plan.bounded,
        "tasks": [
            {
                "id": task.index,
                "name": task.name,
                "parallelism": task.parallelism,
                "operators": [_operator_dict(operator) for operator in task.head.walk()],
            }
            for task in plan.tasks
        ],
        "edges": [
            {
                "source": edge.source,
                "target": edge.target,
                "partitioning": str(edge.partitioning),
                "port": edge.port,
                "tag": edge.tag,
            }
            for edge in plan.edges
        ],
        "feedback": [
            {"source": plan.task_of(end).index, "target": plan.task_of(future).index} for end, future in plan.feedback
        ],
    }


def as_json(name: str, plan: PhysicalPlan) -> str:
    """`as_dict` as indented JSON."""
    return json.dumps(as_dict(name, plan), indent=2)


def _operator_lines(operator: PhysicalOperator, indent: str) -> list[str]:
    node = operator.node
    function = f"  {_label(operator)}" if _label(operator) else ""
    keys = [key.label() for key in operator.keys if key is not None and not key.is_constant]
    keyed = f"  keyed by {' and '.join(keys)}" if keys else ""
    side = f"  reads side output {operator.tag!r}" if operator.tag is not None else ""
    lines = [f"{indent}{node.name}{function}{keyed}{side}  [{node.origin}]"]
    for child in operator.children:
        lines.extend(_operator_lines(child, indent + "  "))
    return lines


def _operator_dict(operator: PhysicalOperator) -> dict[str, Any]:
    node = operator.node
    return {
        "id": node.uid,
        "name": node.name,
        "kind": str(node.kind),
        "uid": node.given_uid,
        "function": node.function.label() if node.function is not None else node.label or None,
        "key": operator.key.label() if operator.key is not None else None,
        "keys": [None if key is None else key.label() for key in operator.keys],
        "tag": operator.tag,
        "file": node.origin.file,
        "line": node.origin.line,
    }


def _inputs(plan: PhysicalPlan, task: TaskPlan) -> str:
    edges: list[PhysicalEdge] = [edge for edge in plan.edges if edge.target == task.index]
    several = any(edge.port for edge in edges)
    shown = []
    for edge in edges:
        port = f", input {edge.port + 1}" if several else ""
        tag = f", side output {edge.tag!r}" if edge.tag is not None else ""
        shown.append(f"  ← task {edge.source + 1} ({edge.partitioning}{port}{tag})")
    back = [end for end, future in plan.feedback if future == task.head.node.index]
    shown += [f"  ← task {plan.task_of(end).index + 1} (feedback)" for end in back]
    return "".join(shown)


def _label(operator: PhysicalOperator) -> str:
    node = operator.node
    what = node.source or node.function
    return what.label() if what is not None else node.label


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""A plan as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html), for Markdown pages."""

from __future__ import annotations

from sage.core.graph.plan import PhysicalOperator, PhysicalPlan, TaskPlan

__all__ = ["as_mermaid"]


def as_mermaid(name: str, plan: PhysicalPlan) -> str:
    """One box a task, in it its operators; arrows between tasks say how records travel."""
    lines = ["---", f"title: {' '.join(name.split())}", "---", "flowchart LR"]
    leaving: dict[int, PhysicalOperator] = {}
    for task in plan.tasks:
        lines += _task(task, leaving)
    for edge in plan.edges:
        target = plan.tasks[edge.target].head
        several = target.node.ports > 1
        words = [str(edge.partitioning)]
        words += [f"by {edge.key.label()}"] if edge.key is not None else []
        words += [f"input {edge.port + 1}"] if several else []
        words += [f"side output {edge.tag}"] if edge.tag is not None else []
        lines.append(f"  {_id(leaving[edge.index])} -- {_quoted(', '.join(words))} --> {_id(target)}")
    lines += [f"  n{end} -. {_quoted('feedback')} .-> n{future}" for end, future in plan.feedback]
    return "\n".join(lines)


def _task(task: TaskPlan, leaving: dict[int, PhysicalOperator]) -> list[str]:
    lines = [f"  subgraph t{task.index} [{_quoted(f'task {task.index + 1} × {task.parallelism}')}]"]
    for operator in task.head.walk():
        leaving |= dict.fromkeys(operator.outputs, operator)
        lines.append(f"    {_id(operator)}[{_quoted(operator.node.name)}]")
    for operator in task.head.walk():
        for child in operator.children:
            words = f" -- {_quoted(f'side output {child.tag}')}" if child.tag is not None else ""
            lines.append(f"    {_id(operator)}{words} --> {_id(child)}")
    return [*lines, "  end"]


def _id(operator: PhysicalOperator) -> str:
    return f"n{operator.node.index}"


def _quoted(text: str) -> str:
    return '"' + " ".join(text.replace("#", "#35;").replace('"', "#quot;").split()) + '"'

"""Sinks that would fill something in this process, while they run in another: nobody would ever see their records."""

from __future__ import annotations

import types
from collections import deque
from typing import Any

from sage.common.errors import PipelineError
from sage.core.graph.logical import LogicalNode
from sage.core.graph.origin import describe
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime import session

__all__ = ["refuse_local_sinks"]

_FILLED = (list, dict, set, deque, bytearray)
_FILLS = frozenset(
    {"add", "append", "appendleft", "extend", "extendleft", "insert", "put", "setdefault", "update", "__setitem__"}
)
_HINT = "write to files (write_jsonl), print, or run the job with execution.runtime: threads"


def refuse_local_sinks(plan: PhysicalPlan) -> None:
    """Raises PipelineError for a method of a list, dict, set or deque as a sink; warns of functions that use one."""
    for operator in plan.operators():
        node = operator.node
        if not node.is_sink or node.function is None:
            continue
        target = node.function.target
        if isinstance(getattr(target, "__self__", None), _FILLED):
            raise _refused(node, target)
        for name in _filled_names(target):
            session.warn(
                f"{node.name!r} ({node.origin}) fills {name!r} in its worker process; the one of this process stays as"
                f" it is: {_HINT}"
            )


def _refused(node: LogicalNode, target: Any) -> PipelineError:
    return PipelineError(
        f"Sink {node.name!r} fills a {type(target.__self__).__name__} that no worker process has ({node.origin})",
        cause=f"{describe(target)} would fill a copy of it in another process",
        hint=_HINT,
        details={"operator": node.name, "file": node.origin.file, "line": node.origin.line},
    )


def _filled_names(target: Any) -> list[str]:
    """Containers from around a function that it seems to fill: it mentions them, and a method that fills."""
    if not isinstance(target, types.FunctionType) or not _FILLS.intersection(target.__code__.co_names):
        return []
    around = dict(zip(target.__code__.co_freevars, target.__closure__ or (), strict=False))
    values = {name: cell.cell_contents for name, cell in around.items() if _is_set(cell)}
    values |= {name: target.__globals__[name] for name in target.__code__.co_names if name in target.__globals__}
    return [name for name, value in values.items() if isinstance(value, _FILLED)]


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asked whether it raises
    except ValueError:
        return False
    return True

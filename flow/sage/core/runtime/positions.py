"""Counts the records for which functions that call services are called, as a part of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.call_origin import CallOrigin, origin_variable
from sage.core.graph.logical import LogicalNode
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.operators.async_factory import AsyncFactory
from sage.core.state.base import OperatorStateBackend

__all__ = ["counted", "keep_position", "origin_of", "restored_origin"]

_POSITIONS = "calls.positions"


def origin_of(
    node: LogicalNode, state: OperatorStateBackend, subtask: int, *, run: str, has_services: bool
) -> CallOrigin | None:
    """Where an operator is in its records, if its function may call services; `run` is a job's that begins anew."""
    spec = node.function or getattr(node.factory, "function", None)
    if not isinstance(spec, FunctionSpec) or not (
        isinstance(node.factory, AsyncFactory) or _sends_keys(spec.target) or (has_services and _is_ours(spec.target))
    ):
        return None
    return restored_origin(state, node.uid, subtask, run)


def restored_origin(state: OperatorStateBackend, operator_id: str, subtask: int, run: str) -> CallOrigin:
    """The origin that the checkpoint has for this subtask; after a rescale, positions that no subtask had before."""
    kept = state.get(_POSITIONS, "union")
    mine = [(position, known) for number, position, known in kept if number == subtask]
    if mine:
        position, known = mine[0]
        return CallOrigin(known, operator_id, subtask, position)
    if kept:
        return CallOrigin(kept[0][2], operator_id, subtask, max(position for _, position, _ in kept))
    return CallOrigin(run, operator_id, subtask)


def keep_position(state: OperatorStateBackend, origin: CallOrigin) -> None:
    """Put it into the next snapshot."""
    state.put(_POSITIONS, [(origin.subtask, origin.position, origin.run)], "union")


def counted(call: Callable[..., Any], origin: CallOrigin) -> Callable[..., Any]:
    """The same function; each call of it is one record further."""
    advance, announce = origin.advance, origin_variable.set

    def counting(*args: Any) -> Any:
        advance()
        announce(origin)
        return call(*args)

    return counting


def _sends_keys(target: Any) -> bool:
    return bool(getattr(getattr(target, "__self__", target), "sends_idempotency_keys", False))


def _is_ours(target: Any) -> bool:
    owner = getattr(target, "__self__", target)
    return isinstance(owner, BaseFunction) or (isinstance(owner, type) and issubclass(owner, BaseFunction))

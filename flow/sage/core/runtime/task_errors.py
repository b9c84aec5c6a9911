"""What ended a task, told with the operator's name, the user's line and the record."""

from __future__ import annotations

from sage.common.errors import PipelineError
from sage.core.graph.plan import PhysicalOperator
from sage.core.runtime.chain import Chain
from sage.core.runtime.failure import operator_failed, told
from sage.core.runtime.output import KeySelectionFailed

__all__ = ["explained", "in_phase"]


def explained(task: str, chain: Chain, error: BaseException) -> PipelineError:
    """The error of a task while it ran its chain."""
    if isinstance(error, KeySelectionFailed):
        cause = error.__cause__ or error
        failed = operator_failed("key_by", cause, error.key.origin, record=error.record)
        failed.__cause__ = cause
        return failed
    failure = chain.failure(error.__traceback__)
    if failure is None:
        return error if isinstance(error, PipelineError) else _unexplained(task, error)
    node, key = failure.operator.plan.node, failure.operator.plan.key_of(failure.port)
    by_key = failure.in_key and key is not None
    origin = key.origin if by_key and key is not None else node.origin
    phase = "" if failure.at_record else "the operator"
    failed = operator_failed("key_by" if by_key else node.name, error, origin, record=failure.record, phase=phase)
    failed.__cause__ = error
    return failed


def in_phase(operator: PhysicalOperator, error: BaseException, phase: str) -> PipelineError:
    """The error of an operator that was not at a record: in `open`, `flush` or `close`."""
    failed = operator_failed(operator.node.name, error, operator.node.origin, phase=f"{phase}()")
    failed.__cause__ = error
    return failed


def _unexplained(name: str, error: BaseException) -> PipelineError:
    failed = PipelineError(f"Task {name!r} failed", cause=told(error))
    failed.__cause__ = error
    return failed

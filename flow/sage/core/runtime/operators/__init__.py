"""Operators that are more than a call for each record: windows, joins, timers, async calls, sources of watermarks."""

from sage.core.runtime.operators.base import Emitter, Operator, OperatorContext, OperatorFactory

__all__ = ["Emitter", "Operator", "OperatorContext", "OperatorFactory"]

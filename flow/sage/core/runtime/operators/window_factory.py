"""Chooses the operator for a windowed stream."""

from __future__ import annotations

from dataclasses import dataclass

from sage.core.api.windows.assigners import MergingWindowAssigner
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.window_sessions import MergingWindowOperator
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec

__all__ = ["WindowFactory"]


@dataclass(slots=True, frozen=True)
class WindowFactory:
    """Makes the operator of a windowed stream."""

    spec: WindowSpec

    def __call__(self) -> Operator:
        if isinstance(self.spec.assigner, MergingWindowAssigner):
            return MergingWindowOperator(self.spec)
        return WindowOperator(self.spec)

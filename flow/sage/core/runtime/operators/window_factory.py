"""Chooses the operator for a windowed stream."""

from __future__ import annotations

from dataclasses import dataclass

from sage.core.api.windows.assigners import (
    EventTimeSessionWindows,
    MergingWindowAssigner,
    SlidingEventTimeWindows,
    TumblingEventTimeWindows,
)
from sage.core.api.windows.triggers import EventTimeTrigger
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.window_aggregates import BuiltinAggregate, as_result
from sage.core.runtime.operators.window_panes import MOST_SLICES, PaneWindowOperator
from sage.core.runtime.operators.window_quick_sessions import SessionWindowOperator
from sage.core.runtime.operators.window_sessions import MergingWindowOperator
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec

__all__ = ["WindowFactory"]


@dataclass(slots=True, frozen=True)
class WindowFactory:
    """Makes the operator of a windowed stream."""

    spec: WindowSpec

    def __call__(self) -> Operator:
        spec = self.spec
        default = type(spec.trigger) in (type(None), EventTimeTrigger) and spec.evictor is None
        if isinstance(spec.assigner, MergingWindowAssigner):
            quick = default and type(spec.assigner) is EventTimeSessionWindows
            return SessionWindowOperator(spec) if quick else MergingWindowOperator(spec)
        aggregate = _sliced(spec) if default else None
        return WindowOperator(spec) if aggregate is None else PaneWindowOperator(spec, aggregate)


def _sliced(spec: WindowSpec) -> BuiltinAggregate | None:
    """The built-in aggregate of a stream that PaneWindowOperator can run."""
    aggregate = spec.contents.function.target if spec.contents.function is not None else None
    assigner = spec.assigner
    if not isinstance(aggregate, BuiltinAggregate) or spec.function is None or spec.function.target is not as_result:
        return None
    if type(assigner) not in (TumblingEventTimeWindows, SlidingEventTimeWindows):
        return None
    size, slide = assigner.size, assigner.slide  # type: ignore[attr-defined]
    return aggregate if size % slide == 0 and size // slide <= MOST_SLICES else None

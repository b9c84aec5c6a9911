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
from sage.core.runtime.operators.window_default import DefaultWindowOperator
from sage.core.runtime.operators.window_panes import MOST_SLICES, PaneWindowOperator
from sage.core.runtime.operators.window_quick_sessions import SessionWindowOperator
from sage.core.runtime.operators.window_sessions import MergingWindowOperator
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec

__all__ = ["WindowFactory", "fires_by_default"]


@dataclass(slots=True, frozen=True)
class WindowFactory:
    """Makes the operator of a windowed stream."""

    spec: WindowSpec

    def __call__(self) -> Operator:
        spec = self.spec
        default = fires_by_default(spec)
        if isinstance(spec.assigner, MergingWindowAssigner):
            quick = default and type(spec.assigner) is EventTimeSessionWindows and spec.evictor is None
            return SessionWindowOperator(spec) if quick else MergingWindowOperator(spec)
        aggregate = _sliced(spec) if default else None
        if aggregate is not None:
            return PaneWindowOperator(spec, aggregate)
        return DefaultWindowOperator(spec) if default else WindowOperator(spec)


def fires_by_default(spec: WindowSpec) -> bool:
    """Whether windows fire at their end in event time."""
    trigger = spec.assigner.get_default_trigger() if spec.trigger is None else spec.trigger
    return spec.assigner.is_event_time() and type(trigger) is EventTimeTrigger


def _sliced(spec: WindowSpec) -> BuiltinAggregate | None:
    """The built-in aggregate of a stream that PaneWindowOperator can run."""
    aggregate = spec.contents.function.target if spec.contents.function is not None else None
    assigner = spec.assigner
    if not isinstance(aggregate, BuiltinAggregate) or spec.function is None or spec.function.target is not as_result:
        return None
    if spec.evictor is not None or type(assigner) not in (TumblingEventTimeWindows, SlidingEventTimeWindows):
        return None
    size, slide = assigner.size, assigner.slide  # type: ignore[attr-defined]
    return aggregate if size % slide == 0 and size // slide <= MOST_SLICES else None

"""Joins and co-groups of two streams in windows. After Flink's JoinedStreams and CoGroupedStreams: both streams go into
the same windows, as pairs of the stream's number and the record, and are taken apart when a window fires.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.api.windows.assigners import MergingWindowAssigner
from sage.core.graph.spec import BoundFunction, FunctionKind, FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import select_keys
from sage.core.runtime.operators.window_default import DefaultWindowOperator
from sage.core.runtime.operators.window_factory import fires_by_default
from sage.core.runtime.operators.window_sessions import MergingWindowOperator
from sage.core.runtime.operators.windows import WindowOperator, WindowSpec, times_of

__all__ = ["WindowJoinFactory"]


@dataclass(slots=True, frozen=True)
class WindowJoinFactory:
    """Makes the operator of a window join or co-group; `function` is of kind JOIN or CO_GROUP."""

    spec: WindowSpec
    function: FunctionSpec

    def __call__(self) -> Operator:
        if isinstance(self.spec.assigner, MergingWindowAssigner):
            return _MergingJoin(self.spec, self.function)
        return (_DefaultJoin if fires_by_default(self.spec) else _Join)(self.spec, self.function)


class _TwoStreams(WindowOperator):
    """Two inputs into the same windows."""

    def __init__(self, spec: WindowSpec, function: FunctionSpec) -> None:
        super().__init__(spec)
        self._function = function

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        self._selectors = context.key_selectors

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        records, selector = batch.records, self._selectors[port]
        if not records:
            return
        assert selector is not None, "both streams are keyed"
        times = times_of(batch, self._event_time)
        elements: list[Any] = [(port, record) for record in records]
        if self._windows.evictor is not None:
            elements = list(zip(elements, times, strict=True))
        self._take(records, elements, select_keys(selector, records), times)

    def _window_function(self) -> BoundFunction:
        bound = self._bound(self._function)
        by_pair = self._function.kind is FunctionKind.JOIN
        return BoundFunction(_pairs(bound.call) if by_pair else _groups(bound.call), None, bound.target)


class _Join(_TwoStreams):
    """Any trigger, windows that do not merge."""


class _DefaultJoin(_TwoStreams, DefaultWindowOperator):
    """The default trigger."""


class _MergingJoin(_TwoStreams, MergingWindowOperator):
    """Sessions."""


def _pairs(join: Callable[[Any, Any], Any]) -> Callable[[Any, Any, list[Any], Any], None]:
    """Every record of the first stream with every one of the second, in the order in which they came."""

    def window_function(key: Any, window: Any, values: list[Any], out: Any) -> None:
        seconds = [record for port, record in values if port == 1]
        for port, first in values:
            if port == 0:
                out.extend([join(first, second) for second in seconds])

    return window_function


def _groups(co_group: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, list[Any], Any], Any]:
    """The records of the first stream, and those of the second."""

    def window_function(key: Any, window: Any, values: list[Any], out: Any) -> Any:
        return co_group(
            [record for port, record in values if port == 0], [record for port, record in values if port == 1], out
        )

    return window_function

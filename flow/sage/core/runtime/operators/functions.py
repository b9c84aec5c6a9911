"""What operators that call users' functions have in common: the life of the function, its collector, keys of records.

In loops over records the variable is named `record`: a failure is told with the record by looking at the frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.graph.spec import BoundFunction, FunctionSpec
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import Emitter, Operator, OperatorContext
from sage.core.runtime.positions import counted

__all__ = ["NO_TIME", "BatchCollector", "FunctionOperator", "begin", "many", "select_keys", "settle"]

NO_TIME = NO_WATERMARK  # the time of a record that has none, among records that have (Flink: Long.MIN_VALUE)


class BatchCollector:
    """The `Collector` of a user's function: its methods are those of the emitter's list."""

    __slots__ = ("collect", "extend")

    def __init__(self) -> None:
        self.collect: Callable[[Any], None] = _no_batch
        self.extend: Callable[[Any], None] = _no_batch

    def point_to(self, out: Emitter) -> None:
        """Collect into `out` from now on."""
        self.collect = out.records.append
        self.extend = out.records.extend


def _no_batch(_: Any) -> None:
    raise RuntimeError("a Collector can be used only inside the call that it was given to")


class FunctionOperator(Operator):
    """Binds a user's function in `open` and frames it by its own `open` and `close`. Subclasses with several functions
    (or none) give None, and bind them themselves."""

    def __init__(self, function: FunctionSpec | None) -> None:
        self._binds = function is not None
        if function is not None:
            self._spec = function
        self._instances: list[BaseFunction] = []

    def open(self, context: OperatorContext) -> None:
        """Prepares contexts, then opens the function."""
        super().open(context)
        function = context.function
        if function.keyed is None and function.operator_state is None:
            function = dataclasses.replace(function, keyed=context.keyed, operator_state=context.operator_state)
        self.function = function
        if self._binds:
            self.bound = self._bind(self._spec, function)

    def close(self) -> None:
        """Closes what was opened, all of it; the first error is raised then."""
        failed: BaseException | None = None
        while self._instances:
            try:
                self._instances.pop().close()
            except BaseException as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _bind(self, spec: FunctionSpec, function: FunctionContext) -> BoundFunction:
        bound = spec.bind(function.subtask_index, function.parallelism)
        if function.origin is not None:
            bound.call = counted(bound.call, function.origin)
        if bound.instance is not None:
            self._instances.append(bound.instance)
            bound.instance._context = function
            bound.instance.open(function)
        return bound


def select_keys(selector: Callable[[Any], Any], records: list[Any]) -> list[Any]:
    """The keys of these records. When the selector raises, the local variable `record` is the one that it was given."""
    taken: Any = iter(records)
    try:
        return list(map(selector, taken))
    except BaseException:
        record = records[len(records) - taken.__length_hint__() - 1]  # noqa: F841 - for the failure's message
        raise


def many(result: Any) -> Iterable[Any]:
    """What a flat_map function returned, as an iterable. Raises TypeError for a text, whose letters nobody wants."""
    if result is None:
        return ()
    if isinstance(result, (str, bytes)):
        raise TypeError(f"flat_map got the {type(result).__name__} {result!r:.40} where it needs a list of records")
    return result  # type: ignore[no-any-return]


def begin(out: Emitter, batch: Batch) -> None:
    """Before a batch is processed: what comes out has times as soon as any input has."""
    if batch.timestamps is not None:
        out.timed = True


def settle(out: Emitter) -> None:
    """After a batch without times: what it put out has none, though that of other batches has."""
    if out.timed:
        out.timestamps.extend([NO_TIME] * (len(out.records) - len(out.timestamps)))

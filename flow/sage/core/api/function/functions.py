"""The kinds of functions: what `execute` (or `process`) takes and gives in each operator.

A subclass defines one of the method names that its docstring lists. Which methods exist is checked when the operator is
added to a stream, so that a wrong class is reported at the line that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from sage.core.api.function.base_function import BaseFunction, FunctionContext

__all__ = [
    "BatchFunction",
    "Collector",
    "FilterFunction",
    "FlatMapFunction",
    "KeyByFunction",
    "MapFunction",
    "ProcessContext",
    "ProcessFunction",
    "ReduceFunction",
    "SinkFunction",
    "SourceFunction",
]

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")
T_contra = TypeVar("T_contra", contravariant=True)


class MapFunction(BaseFunction, Generic[T, R]):
    """`execute(value: T) -> R` (or `process`, `map`): one record in, one out. `None` is a record like any other."""


class FilterFunction(BaseFunction, Generic[T]):
    """`execute(value: T) -> bool` (or `process`, `filter`): true keeps the record."""


class FlatMapFunction(BaseFunction, Generic[T, R]):
    """`execute(value: T) -> Iterable[R] | None` (or `process`, `flat_map`): any number of records out.

    A generator is consumed while it runs: it may yield without end. `None` means no record; a `str` or `bytes` is
    refused, because its characters are hardly ever what was meant (return `list(text)` if they are).
    """


class KeyByFunction(BaseFunction, Generic[T, K]):
    """`execute(value: T) -> K` (or `process`, `get_key`): the record's key.

    Must give the same key for the same record each time (as Flink's KeySelector must): it is evaluated where the record
    is sent and again where it arrives.
    """


class ReduceFunction(BaseFunction, Generic[T]):
    """`reduce(accumulated: T, value: T) -> T` (or `execute`, `process`): folds the records of a key."""


class SinkFunction(BaseFunction, Generic[T]):
    """`execute(value: T) -> None` (or `process`, `invoke`): the end of a stream."""

    def flush(self) -> None:
        """Write out what is held back. Called when the stream pauses, at least every `buffer.timeout` while it runs,
        and before `close`. Does nothing unless overridden."""


class SourceFunction(BaseFunction, Generic[R]):
    """`execute() -> R` (or `process`, `run`): called again and again, one record each time.

    It ends by returning or raising `StopSignal` (or raising StopIteration). When the method is a generator function, or
    returns an iterator, the records are what that gives, and the source ends with it.
    """


class BatchFunction(SourceFunction[R]):
    """A source that is known to end: the same contract as `SourceFunction`."""


class Collector(Protocol[T_contra]):
    """Takes what a `ProcessFunction` puts out."""

    def collect(self, value: T_contra) -> None:
        """Hand one record to the next operator."""

    def extend(self, values: Iterable[T_contra]) -> None:
        """Hand several records to the next operator."""


class ProcessContext:
    """What a `ProcessFunction` sees beside the record: where it runs, and the record's key on a keyed stream."""

    __slots__ = ("function", "key")

    def __init__(self, function: FunctionContext) -> None:
        self.function = function
        self.key: object = None


class ProcessFunction(BaseFunction, Generic[T, R]):
    """`process_element(value: T, context: ProcessContext, out: Collector[R]) -> None`: the general operator.

    After Flink's ProcessFunction. Records put into `out` go on when `process_element` returns.
    """

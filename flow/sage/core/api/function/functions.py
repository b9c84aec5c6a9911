"""The kinds of functions: what `execute` (or `process`) takes and gives in each operator.

A subclass defines one of the method names that its docstring lists. Which methods exist is checked when the operator is
added to a stream, so that a wrong class is reported at the line that uses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.contexts import ProcessContext

__all__ = [
    "AggregateFunction",
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
IN = TypeVar("IN")
ACC = TypeVar("ACC")
OUT = TypeVar("OUT")
T_contra = TypeVar("T_contra", contravariant=True)


class AggregateFunction(BaseFunction, ABC, Generic[IN, ACC, OUT]):
    """Folds records into an accumulator, from which the result is read (Flink's AggregateFunction).

    The accumulator must be plain data (numbers, text, lists, dicts, tuples): it is kept in state and in checkpoints.
    `add` and `merge` may change an accumulator in place, but must return it.
    """

    @abstractmethod
    def create_accumulator(self) -> ACC:
        """A fresh accumulator: of no records."""

    @abstractmethod
    def add(self, value: IN, accumulator: ACC) -> ACC:
        """The accumulator with one record more."""

    @abstractmethod
    def get_result(self, accumulator: ACC) -> OUT:
        """What the accumulator amounts to; must not change it."""

    def merge(self, accumulator: ACC, other: ACC) -> ACC:
        """Both in one: needed for windows that merge (sessions)."""
        raise NotImplementedError(f"{type(self).__name__} has no merge(), which session windows need")


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
    """Takes what a function puts out: any number of records for each one that it is given."""

    def collect(self, value: T_contra) -> None:
        """Hand one record to the next operator."""

    def extend(self, values: Iterable[T_contra]) -> None:
        """Hand several records to the next operator."""


class ProcessFunction(BaseFunction, Generic[T, R]):
    """`process_element(value: T, context: ProcessContext, out: Collector[R]) -> None`: the general operator.

    After Flink's ProcessFunction. Records put into `out` go on when `process_element` returns. On a keyed stream, use a
    KeyedProcessFunction: it has timers too.
    """

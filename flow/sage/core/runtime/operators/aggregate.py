"""Rolling aggregates of a keyed stream: every record puts out its key's new result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import NO_TIME, FunctionOperator, begin, select_keys

__all__ = ["AggregateFactory", "AggregateOperator", "CountFactory", "CountOperator"]


@dataclass(slots=True, frozen=True)
class AggregateFactory:
    """Makes the operator of `KeyedStream.aggregate`."""

    function: FunctionSpec

    def __call__(self) -> Operator:
        return AggregateOperator(self.function)


@dataclass(slots=True, frozen=True)
class CountFactory:
    """Makes the operator of `KeyedStream.count`."""

    def __call__(self) -> Operator:
        return CountOperator()


class AggregateOperator(FunctionOperator):
    """Keeps an accumulator of an AggregateFunction for each key."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "the stream is keyed"
        self._table = context.keyed.table("aggregate", "aggregate")

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        function, keyed, table = self.bound.target, self.context.keyed, self._table
        selector = self.context.key_selectors[0]
        assert selector is not None
        assert keyed is not None
        get, put, add, result = table.get, table.put, function.add, function.get_result
        append = _begun(self.context, batch)
        for record, key in zip(batch.records, select_keys(selector, batch.records), strict=True):
            keyed.key = key
            accumulator = get()
            accumulator = add(record, function.create_accumulator() if accumulator is None else accumulator)
            put(accumulator)
            append(result(accumulator))


class CountOperator(Operator):
    """Counts the records of each key."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "the stream is keyed"
        self._table = context.keyed.table("count", "int")

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        keyed, get, put = self.context.keyed, self._table.get, self._table.put
        selector = self.context.key_selectors[0]
        assert selector is not None
        append = _begun(self.context, batch)
        keyed_any: Any = keyed
        for key in select_keys(selector, batch.records):
            keyed_any.key = key
            count = (get() or 0) + 1
            put(count)
            append((key, count))


def _begun(context: OperatorContext, batch: Batch) -> Any:
    """One record out for each one in, with its time."""
    begin(context.out, batch)
    if context.out.timed:
        times = batch.timestamps
        context.out.timestamps.extend([NO_TIME] * len(batch.records) if times is None else times)
    return context.out.records.append

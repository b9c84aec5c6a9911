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
        keys = select_keys(selector, batch.records)
        append = _begun(self.context, batch)
        direct = getattr(table, "direct", None)
        if direct is not None:
            _aggregate_in(direct, function, batch.records, keys, append)
            return
        get, put, add, result = table.get, table.put, function.add, function.get_result
        for record, key in zip(batch.records, keys, strict=True):
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
        keyed: Any = self.context.keyed
        selector = self.context.key_selectors[0]
        assert selector is not None
        keys = select_keys(selector, batch.records)
        append = _begun(self.context, batch)
        direct = getattr(self._table, "direct", None)
        if direct is not None:
            find = direct.get
            for key in keys:
                direct[key] = count = find(key, 0) + 1
                append((key, count))
            return
        get, put = self._table.get, self._table.put
        for key in keys:
            keyed.key = key
            count = (get() or 0) + 1
            put(count)
            append((key, count))


def _aggregate_in(values: dict[Any, Any], function: Any, records: list[Any], keys: list[Any], append: Any) -> None:
    """The loop over a table whose values are a dict in memory."""
    find, add, result = values.get, function.add, function.get_result
    for record, key in zip(records, keys, strict=True):
        accumulator = find(key)
        if accumulator is None:
            accumulator = function.create_accumulator()
        values[key] = accumulator = add(record, accumulator)
        append(result(accumulator))


def _begun(context: OperatorContext, batch: Batch) -> Any:
    """One record out for each one in, with its time."""
    begin(context.out, batch)
    if context.out.timed:
        times = batch.timestamps
        context.out.timestamps.extend([NO_TIME] * len(batch.records) if times is None else times)
    return context.out.records.append

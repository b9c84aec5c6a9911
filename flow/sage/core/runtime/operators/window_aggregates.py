"""The built-in aggregates of windows: AggregateFunctions, which also take a whole batch of one window at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sage.core.api.fields import get_field
from sage.core.api.windows.types import WindowResult

__all__ = ["BuiltinAggregate", "Count", "Field", "Max", "Mean", "Min", "Sum", "as_result"]

Field = int | str | Callable[[Any], Any] | None


class BuiltinAggregate(ABC):
    """Accumulators by key in a dict: `extend` folds many records in."""

    def new(self) -> dict[Any, Any]:
        """An empty dict for accumulators."""
        return {}

    @abstractmethod
    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """Each record into the accumulator of its key, in order; new keys come in the order of their first record."""

    def create_accumulator(self) -> Any:
        """See AggregateFunction: None stands for no records."""
        return None

    @abstractmethod
    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""

    def get_result(self, accumulator: Any) -> Any:
        """See AggregateFunction."""
        return accumulator

    @abstractmethod
    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""

    def merge_all(self, accumulators: Iterable[Any], others: Iterable[Any]) -> list[Any]:
        """Pairs of accumulators, merged; None stands for no records."""
        merge = self.merge
        pairs = zip(accumulators, others, strict=True)
        return [own if other is None else other if own is None else merge(own, other) for own, other in pairs]


@dataclass(slots=True, frozen=True)
class Count(BuiltinAggregate):
    """How many records."""

    def new(self) -> dict[Any, Any]:
        """A Counter: it counts in C."""
        return Counter()

    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """See BuiltinAggregate."""
        accumulators.update(keys)  # of a Counter: counts them

    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""
        return (accumulator or 0) + 1

    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""
        return accumulator + other


@dataclass(slots=True, frozen=True)
class _OfField(BuiltinAggregate):
    field: Field = None

    def value(self, record: Any) -> Any:
        """What is aggregated of one record."""
        field = self.field
        if field is None:
            return record
        return field(record) if callable(field) else get_field(record, field)

    def values(self, records: list[Any]) -> Any:
        """What is aggregated of the records."""
        field = self.field
        if field is None:
            return records
        if callable(field):
            return map(field, records)
        if isinstance(field, int) or isinstance(records[0], dict):
            return map(itemgetter(field), records)
        return [get_field(record, field) for record in records]


@dataclass(slots=True, frozen=True)
class Sum(_OfField):
    """The sum of a field."""

    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """See BuiltinAggregate."""
        for key, value in zip(keys, self.values(records), strict=True):
            if key in accumulators:
                accumulators[key] += value
            else:
                accumulators[key] = value

    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""
        value = self.value(value)
        return value if accumulator is None else accumulator + value

    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""
        return accumulator + other


@dataclass(slots=True, frozen=True)
class Min(_OfField):
    """The least value of a field; the first one of those that are equal."""

    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """See BuiltinAggregate."""
        for key, value in zip(keys, self.values(records), strict=True):
            if key not in accumulators or value < accumulators[key]:
                accumulators[key] = value

    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""
        value = self.value(value)
        return value if accumulator is None or value < accumulator else accumulator

    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""
        return min(accumulator, other)


@dataclass(slots=True, frozen=True)
class Max(_OfField):
    """The greatest value of a field; the first one of those that are equal."""

    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """See BuiltinAggregate."""
        for key, value in zip(keys, self.values(records), strict=True):
            if key not in accumulators or value > accumulators[key]:
                accumulators[key] = value

    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""
        value = self.value(value)
        return value if accumulator is None or value > accumulator else accumulator

    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""
        return max(accumulator, other)


@dataclass(slots=True, frozen=True)
class Mean(_OfField):
    """The mean of a field. The accumulator is (sum, count)."""

    def extend(self, accumulators: dict[Any, Any], keys: list[Any], records: list[Any]) -> None:
        """See BuiltinAggregate."""
        for key, value in zip(keys, self.values(records), strict=True):
            if key in accumulators:
                total, count = accumulators[key]
                accumulators[key] = (total + value, count + 1)
            else:
                accumulators[key] = (value, 1)

    def add(self, value: Any, accumulator: Any) -> Any:
        """See AggregateFunction."""
        value = self.value(value)
        return (value, 1) if accumulator is None else (accumulator[0] + value, accumulator[1] + 1)

    def get_result(self, accumulator: Any) -> Any:
        """See AggregateFunction."""
        return accumulator[0] / accumulator[1]

    def merge(self, accumulator: Any, other: Any) -> Any:
        """See AggregateFunction."""
        return (accumulator[0] + other[0], accumulator[1] + other[1])


def as_result(key: Any, window: Any, values: list[Any], out: Any) -> None:
    """The window function of the built-in aggregates."""
    out.collect(WindowResult(key, window, values[0]))

"""Runs column expressions over record batches, and brings rows into that form and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage.core.api.columns import arrow
from sage.core.api.columns.expressions import Expression
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator

__all__ = ["BatchesFactory", "RowsFactory", "SelectFactory", "WhereFactory"]


@dataclass(slots=True, frozen=True)
class SelectFactory:
    """Makes the operator of `select`: record batches with a column for each expression."""

    columns: tuple[tuple[str, Expression], ...]

    def __call__(self) -> Operator:
        columns = dict(self.columns)
        return _EachBatch(lambda batch: [arrow.select(columns, batch)])


@dataclass(slots=True, frozen=True)
class WhereFactory:
    """Makes the operator of `where`: the rows for which the condition is true."""

    condition: Expression

    def __call__(self) -> Operator:
        return _EachBatch(lambda batch: _unless_empty(arrow.where(self.condition, batch)))


@dataclass(slots=True, frozen=True)
class BatchesFactory:
    """Makes the operator of `columns()`: record batches of the rows (dicts) that come together."""

    schema: Any

    def __call__(self) -> Operator:
        return _Gather(self.schema)


@dataclass(slots=True, frozen=True)
class RowsFactory:
    """Makes the operator of `rows()`: the rows of record batches, as dicts."""

    def __call__(self) -> Operator:
        return _EachBatch(lambda batch: batch.to_pylist())


class _EachBatch(Operator):
    """Any number of records for each record batch; event times end here."""

    def __init__(self, call: Callable[[Any], list[Any]]) -> None:
        self._call = call

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        for record in batch.records:
            self.context.out.records.extend(self._call(record))


class _Gather(Operator):
    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        import pyarrow as pa

        made = pa.RecordBatch.from_pylist(batch.records, schema=self._schema)
        if self._schema is None:
            self._schema = made.schema
        self.context.out.records.append(made)


def _unless_empty(batch: Any) -> list[Any]:
    return [batch] if batch.num_rows else []

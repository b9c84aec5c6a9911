"""The inner join of two keyed streams without windows: every pair of records of one key (SQL's regular join)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.base import Operator, OperatorContext
from sage.core.runtime.operators.functions import NO_TIME, FunctionOperator, begin, select_keys

__all__ = ["JoinFactory", "JoinOperator"]


@dataclass(slots=True, frozen=True)
class JoinFactory:
    """Makes the operator; `ttl_ms` is how long a key's records are kept after the last one."""

    function: FunctionSpec
    ttl_ms: int | None

    def __call__(self) -> Operator:
        return JoinOperator(self.function, self.ttl_ms)


class JoinOperator(FunctionOperator):
    """Keeps both sides: for each key, the records (with their times) in the order in which they came.

    A pair has the later one's time, as in Flink's interval join.
    """

    def __init__(self, function: FunctionSpec, ttl_ms: int | None) -> None:
        super().__init__(function)
        self._ttl_ms = ttl_ms

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "both streams are keyed"
        self._sides = [
            context.keyed.table(name, "join side", ttl_ms=self._ttl_ms) for name in ("join-left", "join-right")
        ]

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        out, keyed, call = self.context.out, self.context.keyed, self.bound.call
        selector = self.context.key_selectors[port]
        assert selector is not None, "both streams are keyed"
        assert keyed is not None, "both streams are keyed"
        begin(out, batch)
        own, other = self._sides[port], self._sides[1 - port]
        times = batch.timestamps or [NO_TIME] * len(batch.records)
        for record, time, key in zip(batch.records, times, select_keys(selector, batch.records), strict=True):
            keyed.key = key
            kept: list[Any] = own.get() or []
            kept.append((record, time))
            own.put(kept)
            for match, matched in other.get() or ():
                out.records.append(call(record, match) if port == 0 else call(match, record))
                if out.timed:
                    out.timestamps.append(max(time, matched))

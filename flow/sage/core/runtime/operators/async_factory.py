"""How an async operator is to work; light to import, because asyncio is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from sage.core.api.function.retry import RetryPolicy
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.operators.base import Operator

__all__ = ["AsyncFactory"]


@dataclass(slots=True, frozen=True)
class AsyncFactory:
    """Makes the operator. `function.kind` says what becomes of what it gives; `timeout` in seconds, for all attempts
    at a record together."""

    function: FunctionSpec
    capacity: int
    timeout: float | None = None
    ordered: bool = True
    retry: RetryPolicy = field(default_factory=partial(RetryPolicy, max_attempts=1))

    def __call__(self) -> Operator:
        from sage.core.runtime.operators.async_io import AsyncOperator

        return AsyncOperator(self)

"""Functions that wait for something else: a service, a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Generic, TypeVar

from sage.core.api.function.base_function import BaseFunction

__all__ = ["AsyncFunction"]

T = TypeVar("T")
R = TypeVar("R")


class AsyncFunction(BaseFunction, ABC, Generic[T, R]):
    """`await async_invoke(value)`: many records are in flight at a time (Flink's async I/O).

    All calls of a job run in one event loop, in a thread of its own: what blocks there blocks all of them. `open` and
    `close` are called in the task's thread.
    """

    @abstractmethod
    async def async_invoke(self, value: T) -> R:
        """One record in, one result out."""

    def timeout(self, value: T) -> R | Awaitable[R]:
        """The result for a record that took longer than the operator's `timeout`. Raises TimeoutError unless
        overridden: the job fails, or the record goes to the dead letters."""
        raise TimeoutError(f"no result in time for {value!r:.80}")

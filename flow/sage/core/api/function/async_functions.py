"""Functions that wait for something else: a service, a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from sage.core.api.function.base_function import BaseFunction

__all__ = ["AsyncFunction"]

T = TypeVar("T")
R = TypeVar("R")


class AsyncFunction(BaseFunction, ABC, Generic[T, R]):
    """`await async_invoke(value)`: many records are in flight at a time (Flink's async I/O)."""

    @abstractmethod
    async def async_invoke(self, value: T) -> R:
        """One record in, one result out."""

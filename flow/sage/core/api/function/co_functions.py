"""Functions of two streams, without time: one method for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from sage.core.api.function.base_function import BaseFunction

__all__ = ["CoFlatMapFunction", "CoMapFunction"]

T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")


class CoMapFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """One record of either stream in, one out."""

    @abstractmethod
    def map1(self, value: T1) -> R:
        """A record of the first stream."""

    @abstractmethod
    def map2(self, value: T2) -> R:
        """A record of the second stream."""


class CoFlatMapFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """One record of either stream in, any number out: a list, a generator, or None for none."""

    @abstractmethod
    def flat_map1(self, value: T1) -> Iterable[R] | None:
        """A record of the first stream."""

    @abstractmethod
    def flat_map2(self, value: T2) -> Iterable[R] | None:
        """A record of the second stream."""

"""Process functions: the general operators, with time, timers, state and side outputs (after PyFlink's).

A record that is put into `out` has the time of the record (or event-time timer) that is being processed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.contexts import KeyedProcessContext, OnTimerContext, ProcessContext
from sage.core.api.function.functions import Collector

__all__ = [
    "CoProcessFunction",
    "KeyedCoProcessFunction",
    "KeyedProcessFunction",
]

K = TypeVar("K")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")


class KeyedProcessFunction(BaseFunction, ABC, Generic[K, T, R]):
    """Sees the records of a keyed stream, with keyed state (from `open`) and timers.

    >>> from sage.core.api import LocalEnvironment
    >>> from sage.core.api.state import ValueStateDescriptor
    >>> class Count(KeyedProcessFunction[str, str, tuple[str, int]]):
    ...     def open(self, context):
    ...         self.seen = context.get_state(ValueStateDescriptor("seen", 0))
    ...     def process_element(self, value, context, out):
    ...         self.seen.update(self.seen.value() + 1)
    ...         context.timer_service().register_event_time_timer(10)
    ...     def on_timer(self, timestamp, context, out):
    ...         out.collect((context.get_current_key(), self.seen.value()))
    >>> env = LocalEnvironment("example")
    >>> _ = env.from_collection(list("abca")).key_by(lambda c: c).process(Count).print()
    >>> _ = env.submit()
    ('a', 2)
    ('b', 1)
    ('c', 1)
    """

    @abstractmethod
    def process_element(self, value: T, context: KeyedProcessContext, out: Collector[R]) -> None:
        """One record."""

    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[R]) -> None:
        """A timer of `context.get_current_key()` is due. Does nothing unless overridden."""


class CoProcessFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """Sees the records of two connected streams; state that both share makes one stream steer the other."""

    @abstractmethod
    def process_element1(self, value: T1, context: ProcessContext, out: Collector[R]) -> None:
        """A record of the first stream."""

    @abstractmethod
    def process_element2(self, value: T2, context: ProcessContext, out: Collector[R]) -> None:
        """A record of the second stream."""


class KeyedCoProcessFunction(BaseFunction, ABC, Generic[K, T1, T2, R]):
    """As CoProcessFunction, for two streams keyed alike: keyed state and timers belong to the key of either record."""

    @abstractmethod
    def process_element1(self, value: T1, context: KeyedProcessContext, out: Collector[R]) -> None:
        """A record of the first stream."""

    @abstractmethod
    def process_element2(self, value: T2, context: KeyedProcessContext, out: Collector[R]) -> None:
        """A record of the second stream."""

    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[R]) -> None:
        """A timer of `context.get_current_key()` is due. Does nothing unless overridden."""

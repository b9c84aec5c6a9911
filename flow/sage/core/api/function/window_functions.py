"""Functions of windows and of joins (after Flink's of the same names)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sage.core.api.function.base_function import BaseFunction
from sage.core.api.function.contexts import ProcessContext
from sage.core.api.function.functions import Collector
from sage.core.api.output_tag import OutputTag

if TYPE_CHECKING:
    from sage.core.api.state import ValueState, ValueStateDescriptor

__all__ = [
    "CoGroupFunction",
    "JoinFunction",
    "ProcessJoinFunction",
    "ProcessWindowContext",
    "ProcessWindowFunction",
    "WindowFunction",
]

K = TypeVar("K")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
R = TypeVar("R")
W = TypeVar("W")


class WindowFunction(BaseFunction, ABC, Generic[K, T, R, W]):
    """Takes a whole window at once."""

    @abstractmethod
    def apply(self, key: K, window: W, values: Iterable[T], out: Collector[R]) -> None:
        """The window's records (or the one result of a reduce or aggregate), when its trigger fires."""


class ProcessWindowContext(Protocol):
    """What a ProcessWindowFunction sees beside the records."""

    @property
    def window(self) -> Any:
        """The window that fires."""

    def current_watermark(self) -> int:
        """Event time, in milliseconds."""

    def current_processing_time(self) -> int:
        """The clock, in milliseconds since the epoch."""

    def window_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """A state (any descriptor) of this key and this window; clear it in `clear`."""

    def global_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """A state (any descriptor) of this key, over all its windows."""

    def output(self, tag: OutputTag[T], value: T) -> None:
        """Put a record out to a side output, with the window's last millisecond as its time."""


class ProcessWindowFunction(BaseFunction, ABC, Generic[K, T, R, W]):
    """As WindowFunction, with the window, time and state of the window through a context."""

    @abstractmethod
    def process(self, key: K, context: ProcessWindowContext, values: Iterable[T], out: Collector[R]) -> None:
        """The window's records (or the one result of a reduce or aggregate), when its trigger fires."""

    def clear(self, context: ProcessWindowContext) -> None:
        """The window is removed: clear what `window_state` keeps. Does nothing unless overridden."""


class JoinFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """Called for each pair of records of one key (and window)."""

    @abstractmethod
    def join(self, first: T1, second: T2) -> R:
        """The pair's result."""


class ProcessJoinFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """Called for each pair of an interval join."""

    @abstractmethod
    def process_element(self, left: T1, right: T2, context: ProcessContext, out: Collector[R]) -> None:
        """A pair; `context.timestamp()` is the later one's time."""


class CoGroupFunction(BaseFunction, ABC, Generic[T1, T2, R]):
    """Called for each key and window with all records of both streams; one of the two may be empty."""

    @abstractmethod
    def co_group(self, first: Iterable[T1], second: Iterable[T2], out: Collector[R]) -> None:
        """The records of one key in one window."""

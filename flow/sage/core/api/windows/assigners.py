"""Window assigners: which windows a record belongs to. Semantics of Flink's classes of the same names.

https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/windows/#window-assigners
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.windows.triggers import EventTimeTrigger, NeverTrigger, ProcessingTimeTrigger, Trigger
from sage.core.api.windows.types import Duration, GlobalWindow, TimeWindow, checked_duration

__all__ = [
    "AssignerContext",
    "EventTimeSessionWindows",
    "GlobalWindows",
    "MergingWindowAssigner",
    "ProcessingTimeSessionWindows",
    "SlidingEventTimeWindows",
    "SlidingProcessingTimeWindows",
    "TumblingEventTimeWindows",
    "TumblingProcessingTimeWindows",
    "WindowAssigner",
    "merged",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
W = TypeVar("W", bound=Hashable)

_KEPT = 4096  # windows whose objects are kept for the next record


class AssignerContext(Protocol):
    """What an assigner can ask."""

    def get_current_processing_time(self) -> int:
        """The clock (ms since the epoch)."""


class WindowAssigner(ABC, Generic[T, W]):
    """Gives the windows of a record. A window is hashable and has `max_timestamp()`, the last time that is in it."""

    @abstractmethod
    def assign_windows(self, element: T, timestamp: int, context: AssignerContext) -> Sequence[W]:
        """The windows of one record; the sequence is not changed."""

    def assign_all(
        self, elements: Sequence[T], timestamps: Sequence[int], context: AssignerContext
    ) -> Sequence[Sequence[W]]:
        """The windows of each record of a batch; the same object twice in a row tells that nothing has changed."""
        assign = self.assign_windows
        return [assign(element, time, context) for element, time in zip(elements, timestamps, strict=True)]

    @abstractmethod
    def get_default_trigger(self) -> Trigger[T, W]:
        """The trigger of a stream that names none."""

    def is_event_time(self) -> bool:
        """Whether windows end by the watermark: only these have late records."""
        return True

    def namespace(self, window: W) -> Hashable:
        """The window as plain data, which stands in state."""
        return window

    def window(self, namespace: Any) -> W:
        """The window that `namespace` gave."""
        result: W = namespace
        return result


class MergingWindowAssigner(WindowAssigner[T, W], Generic[T, W]):
    """Gives each record a window of its own; windows that overlap become one."""

    @abstractmethod
    def merge_windows(self, windows: Iterable[W]) -> Sequence[tuple[W, Sequence[W]]]:
        """The windows that must merge: pairs of the window that comes out and the two or more that go in."""


class _TimeWindows(WindowAssigner[T, TimeWindow], Generic[T]):
    """Windows that are times; in state they are (start, end)."""

    def namespace(self, window: TimeWindow) -> Hashable:
        """See WindowAssigner."""
        return (window[0], window[1])

    def window(self, namespace: Any) -> TimeWindow:
        """See WindowAssigner."""
        return TimeWindow(namespace[0], namespace[1])


class _Aligned(_TimeWindows[T], Generic[T]):
    """Windows of a fixed size that begin every `slide`, shifted by `offset`."""

    def __init__(self, size: Duration, slide: Duration, offset: Duration = 0) -> None:
        kind = type(self).__name__
        self.size = checked_duration(size, f"The size of {kind}")
        self.slide = checked_duration(slide, f"The slide of {kind}")
        self.offset = checked_duration(offset, f"The offset of {kind}", least=None)
        if abs(self.offset) >= self.slide:
            raise PipelineError(
                f"The offset of {kind} must be less than its {'size' if self.size == self.slide else 'slide'}",
                cause=f"got {offset!r}",
            )
        self._known: dict[int, tuple[TimeWindow, ...]] = {}

    def windows_at(self, timestamp: int) -> tuple[TimeWindow, ...]:
        """The windows that hold a time, the latest first (as Flink's SlidingEventTimeWindows gives them)."""
        start = timestamp - (timestamp - self.offset) % self.slide
        if self.size % self.slide:
            return self._covering(start, timestamp)
        windows = self._known.get(start)
        if windows is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            windows = self._known[start] = self._covering(start, timestamp)
        return windows

    def _covering(self, start: int, timestamp: int) -> tuple[TimeWindow, ...]:
        return tuple(TimeWindow(s, s + self.size) for s in range(start, timestamp - self.size, -self.slide))


class _EventTime(_Aligned[T], Generic[T]):
    def assign_all(
        self, elements: Sequence[T], timestamps: Sequence[int], context: AssignerContext
    ) -> Sequence[Sequence[TimeWindow]]:
        """See WindowAssigner."""
        if self.size % self.slide:
            return list(map(self.windows_at, timestamps))
        offset, slide, known, make = self.offset, self.slide, self._known, self.windows_at
        return [known.get(time - (time - offset) % slide) or make(time) for time in timestamps]

    def assign_windows(self, element: T, timestamp: int, context: AssignerContext) -> Sequence[TimeWindow]:
        """See WindowAssigner."""
        return self.windows_at(timestamp)

    def get_default_trigger(self) -> Trigger[T, TimeWindow]:
        """See WindowAssigner."""
        return EventTimeTrigger()


class _ProcessingTime(_Aligned[T], Generic[T]):
    def assign_windows(self, element: T, timestamp: int, context: AssignerContext) -> Sequence[TimeWindow]:
        """See WindowAssigner."""
        return self.windows_at(context.get_current_processing_time())

    def get_default_trigger(self) -> Trigger[T, TimeWindow]:
        """See WindowAssigner."""
        return ProcessingTimeTrigger()

    def is_event_time(self) -> bool:
        """No."""
        return False


class TumblingEventTimeWindows(_EventTime[Any]):
    """Windows of one size, side by side, aligned with the epoch (shifted by `offset`)."""

    @classmethod
    def of(cls, size: Duration, offset: Duration = 0) -> TumblingEventTimeWindows:
        """Windows of `size`.

        >>> TumblingEventTimeWindows.of("10s").windows_at(12_345)
        (TimeWindow(start=10000, end=20000),)
        """
        return cls(size, size, offset)


class SlidingEventTimeWindows(_EventTime[Any]):
    """Windows of one size, of which a new one begins every `slide`: a record is in several when they overlap."""

    @classmethod
    def of(cls, size: Duration, slide: Duration, offset: Duration = 0) -> SlidingEventTimeWindows:
        """Windows of `size` that begin every `slide`.

        >>> SlidingEventTimeWindows.of("10s", "5s").windows_at(12_345)
        (TimeWindow(start=10000, end=20000), TimeWindow(start=5000, end=15000))
        """
        return cls(size, slide, offset)


class TumblingProcessingTimeWindows(_ProcessingTime[Any]):
    """As TumblingEventTimeWindows, by the clock at which a record comes in."""

    @classmethod
    def of(cls, size: Duration, offset: Duration = 0) -> TumblingProcessingTimeWindows:
        """Windows of `size`."""
        return cls(size, size, offset)


class SlidingProcessingTimeWindows(_ProcessingTime[Any]):
    """As SlidingEventTimeWindows, by the clock at which a record comes in."""

    @classmethod
    def of(cls, size: Duration, slide: Duration, offset: Duration = 0) -> SlidingProcessingTimeWindows:
        """Windows of `size` that begin every `slide`."""
        return cls(size, slide, offset)


class _Sessions(_TimeWindows[T], MergingWindowAssigner[T, TimeWindow], Generic[T]):
    def __init__(self, gap: Duration | Callable[[T], Duration]) -> None:
        self.gap: int | None = None  # None: each record has its own
        self._gap_of: Callable[[T], Duration] | None = None
        if callable(gap):
            self._gap_of = gap
        else:
            self.gap = checked_duration(gap, f"The gap of {type(self).__name__}")

    def gap_of(self, element: T) -> int:
        """The gap after a record (ms)."""
        if self._gap_of is None:
            assert self.gap is not None, "one of the two"
            return self.gap
        return checked_duration(self._gap_of(element), "The gap of a session")

    def merge_windows(self, windows: Iterable[TimeWindow]) -> Sequence[tuple[TimeWindow, Sequence[TimeWindow]]]:
        """See MergingWindowAssigner."""
        return merged(windows)

    def _session(self, element: T, timestamp: int) -> Sequence[TimeWindow]:
        return (TimeWindow(timestamp, timestamp + (self.gap or self.gap_of(element))),)


class EventTimeSessionWindows(_Sessions[T], Generic[T]):
    """Windows that end when no record has come for `gap`: of each key, the records between two pauses."""

    @classmethod
    def with_gap(cls, gap: Duration) -> EventTimeSessionWindows[Any]:
        """Sessions that a pause of `gap` ends."""
        return EventTimeSessionWindows(gap)

    @classmethod
    def with_dynamic_gap(cls, gap: Callable[[T], Duration]) -> EventTimeSessionWindows[T]:
        """Sessions with a gap that each record gives: `gap(record)`."""
        return EventTimeSessionWindows(_callable(gap))

    def assign_windows(self, element: T, timestamp: int, context: AssignerContext) -> Sequence[TimeWindow]:
        """See WindowAssigner."""
        return self._session(element, timestamp)

    def get_default_trigger(self) -> Trigger[T, TimeWindow]:
        """See WindowAssigner."""
        return EventTimeTrigger()


class ProcessingTimeSessionWindows(_Sessions[T], Generic[T]):
    """As EventTimeSessionWindows, by the clock."""

    @classmethod
    def with_gap(cls, gap: Duration) -> ProcessingTimeSessionWindows[Any]:
        """Sessions that a pause of `gap` ends."""
        return ProcessingTimeSessionWindows(gap)

    @classmethod
    def with_dynamic_gap(cls, gap: Callable[[T], Duration]) -> ProcessingTimeSessionWindows[T]:
        """Sessions with a gap that each record gives: `gap(record)`."""
        return ProcessingTimeSessionWindows(_callable(gap))

    def assign_windows(self, element: T, timestamp: int, context: AssignerContext) -> Sequence[TimeWindow]:
        """See WindowAssigner."""
        return self._session(element, context.get_current_processing_time())

    def get_default_trigger(self) -> Trigger[T, TimeWindow]:
        """See WindowAssigner."""
        return ProcessingTimeTrigger()

    def is_event_time(self) -> bool:
        """No."""
        return False


class GlobalWindows(WindowAssigner[Any, GlobalWindow]):
    """All records of a key in one window, which only a trigger puts out."""

    @classmethod
    def create(cls) -> GlobalWindows:
        """The assigner."""
        return cls()

    def assign_windows(self, element: Any, timestamp: int, context: AssignerContext) -> Sequence[GlobalWindow]:
        """See WindowAssigner."""
        return _GLOBAL

    def get_default_trigger(self) -> Trigger[Any, GlobalWindow]:
        """NeverTrigger."""
        return NeverTrigger()

    def is_event_time(self) -> bool:
        """No: nothing is late."""
        return False

    def namespace(self, window: GlobalWindow) -> Hashable:
        """See WindowAssigner."""
        return "global"

    def window(self, namespace: Any) -> GlobalWindow:
        """See WindowAssigner."""
        return _GLOBAL[0]


_GLOBAL = (GlobalWindow(),)


def merged(windows: Iterable[TimeWindow]) -> list[tuple[TimeWindow, Sequence[TimeWindow]]]:
    """Which of these overlap or touch, as pairs of the cover and its parts. After `TimeWindow.mergeWindows`.

    >>> merged([TimeWindow(0, 5), TimeWindow(9, 12), TimeWindow(5, 8)])
    [(TimeWindow(start=0, end=8), [TimeWindow(start=0, end=5), TimeWindow(start=5, end=8)])]
    """
    groups: list[tuple[TimeWindow, list[TimeWindow]]] = []
    for window in sorted(windows):
        if groups and groups[-1][0].intersects(window):
            cover, parts = groups[-1]
            parts.append(window)
            groups[-1] = (cover.cover(window), parts)
        else:
            groups.append((window, [window]))
    return [(cover, parts) for cover, parts in groups if len(parts) > 1]


def _callable(gap: Callable[[T], Duration]) -> Callable[[T], Duration]:
    if not callable(gap):
        raise PipelineError("with_dynamic_gap needs a function of a record", cause=f"got {gap!r:.80}")
    return gap

"""What operators and user functions see of timers (after Flink's InternalTimerService)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

__all__ = ["TimerCallback", "TimerService", "TimerServices"]

TimerCallback = Callable[[int, Any, Any], None]  # timestamp (ms), key, namespace


class TimerService(Protocol):
    """The timers of one name in one operator: one for each (timestamp, key, namespace), however often it is set."""

    def register_event_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """Fire when the watermark reaches `timestamp` (ms); at once with the next watermark if it already has."""

    def register_processing_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """Fire when the clock reaches `timestamp` (ms)."""

    def delete_event_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """Forget a timer; one that does not exist is no error."""

    def delete_processing_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """Forget a timer; one that does not exist is no error."""


class TimerServices(Protocol):
    """The timers of one subtask of an operator, kept in its keyed state snapshot and moved with the key groups."""

    def service(
        self, name: str, on_event_time: TimerCallback | None, on_processing_time: TimerCallback | None
    ) -> TimerService:
        """The service of that name; called once in `open`. The state's current key is set before each callback."""

    def advance(self, watermark: int) -> None:
        """Fire all event timers at or before `watermark`, in order of time, those set meanwhile included."""

    def fire_due(self, now_ms: int) -> bool:
        """Fire processing timers that are due; True when any fired."""

    @property
    def next_processing_time(self) -> int | None:
        """When the earliest processing timer is due (ms since the epoch)."""

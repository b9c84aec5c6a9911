"""Triggers: when a window's contents are put out. Semantics of Flink's classes of the same names.

https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/windows/#triggers
"""

from __future__ import annotations

import enum
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.windows.types import is_count

__all__ = [
    "CountTrigger",
    "EventTimeTrigger",
    "NeverTrigger",
    "OnMergeContext",
    "ProcessingTimeTrigger",
    "PurgingTrigger",
    "Trigger",
    "TriggerContext",
    "TriggerResult",
]

T = TypeVar("T")
W = TypeVar("W")


class TriggerResult(enum.Enum):
    """What a trigger asks for: put the window's contents out (fire), drop them (purge), both, or nothing."""

    CONTINUE = (False, False)
    FIRE = (True, False)
    PURGE = (False, True)
    FIRE_AND_PURGE = (True, True)

    def __init__(self, fire: bool, purge: bool) -> None:
        self.is_fire = fire
        self.is_purge = purge


CONTINUE, FIRE, PURGE, FIRE_AND_PURGE = TriggerResult


class TriggerContext(Protocol):
    """Time, timers and state of the window (and key) for which a trigger was called."""

    def get_current_watermark(self) -> int:
        """Event time has come to here (ms)."""

    def get_current_processing_time(self) -> int:
        """The clock (ms since the epoch)."""

    def register_event_time_timer(self, time: int) -> None:
        """Call `on_event_time` for this window when the watermark reaches `time`."""

    def register_processing_time_timer(self, time: int) -> None:
        """Call `on_processing_time` for this window when the clock reaches `time`."""

    def delete_event_time_timer(self, time: int) -> None:
        """Forget a timer of this window; one that does not exist is no error."""

    def delete_processing_time_timer(self, time: int) -> None:
        """Forget a timer of this window; one that does not exist is no error."""

    def get_value(self, name: str) -> Any:
        """A plain value of this window and key that the trigger keeps; None when there is none."""

    def set_value(self, name: str, value: Any) -> None:
        """Keep a plain value for this window and key; None removes it. Remove it in `clear`."""

    def get_partitioned_state(self, descriptor: Any) -> Any:
        """State of this window and key, made from a descriptor; clear it in `clear`."""


class OnMergeContext(TriggerContext, Protocol):
    """What `on_merge` sees: the context of the merged window."""

    def merge_values(self, name: str, combine: Callable[[Any, Any], Any]) -> None:
        """Bring the values of that name of the windows that were merged together into the new window."""

    def merge_partitioned_state(self, descriptor: Any) -> None:
        """Bring the state of the windows that were merged into the new one (list, reducing, aggregating state)."""


class Trigger(ABC, Generic[T, W]):
    """Decides, for each window, when its contents are put out.

    `idempotent`: a call of `on_element` for a window that has contents, and whose end has not come, changes nothing and
    answers CONTINUE; the operator may then leave such calls out.
    """

    idempotent = False

    @abstractmethod
    def on_element(self, element: T, timestamp: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """A record was added to the window."""

    @abstractmethod
    def on_processing_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """A processing timer that this trigger registered is due."""

    @abstractmethod
    def on_event_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """An event timer that this trigger registered is due."""

    def can_merge(self) -> bool:
        """Whether it works with windows that merge (sessions); `on_merge` must then be defined."""
        return False

    def on_merge(self, window: W, ctx: OnMergeContext) -> None:
        """Windows became `window`: bring their state together, register its timers."""
        raise NotImplementedError(f"{type(self).__name__} does not work with windows that merge")

    @abstractmethod
    def clear(self, window: W, ctx: TriggerContext) -> None:
        """The window is gone: remove timers and state."""


class EventTimeTrigger(Trigger[Any, Any]):
    """Fires when the watermark passes the end of the window, and for every late record after that."""

    idempotent = True

    @classmethod
    def create(cls) -> EventTimeTrigger:
        """The trigger."""
        return cls()

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        last = window.max_timestamp()
        if last <= ctx.get_current_watermark():
            return FIRE
        ctx.register_event_time_timer(last)
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return FIRE if time == window.max_timestamp() else CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def can_merge(self) -> bool:
        """Yes."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""
        last = window.max_timestamp()
        if last > ctx.get_current_watermark():
            ctx.register_event_time_timer(last)

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        ctx.delete_event_time_timer(window.max_timestamp())


class ProcessingTimeTrigger(Trigger[Any, Any]):
    """Fires when the clock passes the end of the window."""

    idempotent = True

    @classmethod
    def create(cls) -> ProcessingTimeTrigger:
        """The trigger."""
        return cls()

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        ctx.register_processing_time_timer(window.max_timestamp())
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return FIRE

    def can_merge(self) -> bool:
        """Yes."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""
        last = window.max_timestamp()
        if last > ctx.get_current_processing_time():
            ctx.register_processing_time_timer(last)

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        ctx.delete_processing_time_timer(window.max_timestamp())


class NeverTrigger(Trigger[Any, Any]):
    """Never fires: the default of GlobalWindows."""

    idempotent = True

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def can_merge(self) -> bool:
        """Yes: there is nothing to merge."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""


class CountTrigger(Trigger[Any, Any]):
    """Fires whenever the window has got `max_count` more records."""

    def __init__(self, max_count: int) -> None:
        if not is_count(max_count, 1):
            raise PipelineError("CountTrigger needs a count of at least 1", cause=f"got {max_count!r}")
        self.max_count = max_count

    @classmethod
    def of(cls, max_count: int) -> CountTrigger:
        """Fires after every `max_count` records."""
        return cls(max_count)

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        count = (ctx.get_value("count") or 0) + 1
        if count < self.max_count:
            ctx.set_value("count", count)
            return CONTINUE
        ctx.set_value("count", None)
        return FIRE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def can_merge(self) -> bool:
        """Yes: the counts are added."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""
        ctx.merge_values("count", operator.add)

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        ctx.set_value("count", None)


class PurgingTrigger(Trigger[T, W]):
    """Another trigger, whose firing also drops the window's contents."""

    def __init__(self, trigger: Trigger[T, W]) -> None:
        self.trigger = trigger
        self.idempotent = trigger.idempotent

    @classmethod
    def of(cls, trigger: Trigger[T, W]) -> PurgingTrigger[T, W]:
        """Fire and purge whenever `trigger` fires."""
        return cls(trigger)

    def on_element(self, element: T, timestamp: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return _purging(self.trigger.on_element(element, timestamp, window, ctx))

    def on_event_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return _purging(self.trigger.on_event_time(time, window, ctx))

    def on_processing_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return _purging(self.trigger.on_processing_time(time, window, ctx))

    def can_merge(self) -> bool:
        """As the other trigger."""
        return self.trigger.can_merge()

    def on_merge(self, window: W, ctx: OnMergeContext) -> None:
        """See Trigger."""
        self.trigger.on_merge(window, ctx)

    def clear(self, window: W, ctx: TriggerContext) -> None:
        """See Trigger."""
        self.trigger.clear(window, ctx)


def _purging(result: TriggerResult) -> TriggerResult:
    return FIRE_AND_PURGE if result.is_fire else result

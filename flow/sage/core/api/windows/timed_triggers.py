"""Triggers that put results out early, late, or by the data. Semantics of Flink's classes of the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.windows.triggers import (
    CONTINUE,
    FIRE,
    FIRE_AND_PURGE,
    OnMergeContext,
    Trigger,
    TriggerContext,
    TriggerResult,
)
from sage.core.api.windows.types import Duration, checked_duration

__all__ = [
    "ContinuousEventTimeTrigger",
    "ContinuousProcessingTimeTrigger",
    "DeltaTrigger",
    "ProcessingTimeoutTrigger",
]

T = TypeVar("T")
W = TypeVar("W")


class ContinuousEventTimeTrigger(Trigger[Any, Any]):
    """Fires early, at every multiple of `interval` in event time, and at the end of the window."""

    idempotent = True

    def __init__(self, interval: Duration) -> None:
        self.interval = checked_duration(interval, "The interval of a ContinuousEventTimeTrigger")

    @classmethod
    def of(cls, interval: Duration) -> ContinuousEventTimeTrigger:
        """Fire every `interval`."""
        return cls(interval)

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        last = window.max_timestamp()
        if last <= ctx.get_current_watermark():
            return FIRE
        ctx.register_event_time_timer(last)
        if ctx.get_value("fire") is None:
            self._register(timestamp - timestamp % self.interval, last, ctx)
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        last = window.max_timestamp()
        if time == last:
            return FIRE
        if ctx.get_value("fire") != time:
            return CONTINUE
        self._register(time, last, ctx)
        return FIRE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def can_merge(self) -> bool:
        """Yes: the earliest firing of the windows counts."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""
        ctx.merge_values("fire", min)
        due = ctx.get_value("fire")
        if due is not None:
            ctx.register_event_time_timer(due)

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        due = ctx.get_value("fire")
        if due is not None:
            ctx.delete_event_time_timer(due)
            ctx.set_value("fire", None)

    def _register(self, time: int, last: int, ctx: TriggerContext) -> None:
        due = min(time + self.interval, last)
        ctx.set_value("fire", due)
        ctx.register_event_time_timer(due)


class ContinuousProcessingTimeTrigger(Trigger[Any, Any]):
    """Fires whenever the clock has gone on by `interval`, as long as the window lives."""

    idempotent = True

    def __init__(self, interval: Duration) -> None:
        self.interval = checked_duration(interval, "The interval of a ContinuousProcessingTimeTrigger")

    @classmethod
    def of(cls, interval: Duration) -> ContinuousProcessingTimeTrigger:
        """Fire every `interval`."""
        return cls(interval)

    def on_element(self, element: Any, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        if ctx.get_value("fire") is None:
            now = ctx.get_current_processing_time()
            self._register(now - now % self.interval, window.max_timestamp(), ctx)
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        if ctx.get_value("fire") != time:
            return CONTINUE
        self._register(time, window.max_timestamp(), ctx)
        return FIRE

    def can_merge(self) -> bool:
        """Yes: the earliest firing of the windows counts."""
        return True

    def on_merge(self, window: Any, ctx: OnMergeContext) -> None:
        """See Trigger."""
        ctx.merge_values("fire", min)
        due = ctx.get_value("fire")
        if due is not None:
            ctx.register_processing_time_timer(due)

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        due = ctx.get_value("fire")
        if due is not None:
            ctx.delete_processing_time_timer(due)
            ctx.set_value("fire", None)

    def _register(self, time: int, last: int, ctx: TriggerContext) -> None:
        due = min(time + self.interval, last)
        ctx.set_value("fire", due)
        ctx.register_processing_time_timer(due)


class DeltaTrigger(Trigger[T, Any], Generic[T]):
    """Fires when a record differs from the one of the last firing (or the first) by more than `threshold`.

    `delta(old, new)` gives the difference, a number.
    """

    def __init__(self, threshold: float, delta: Callable[[T, T], float]) -> None:
        if not callable(delta):
            raise PipelineError("DeltaTrigger needs a function of two records", cause=f"got {delta!r:.80}")
        self.threshold = threshold
        self.delta = delta

    @classmethod
    def of(cls, threshold: float, delta: Callable[[T, T], float]) -> DeltaTrigger[T]:
        """Fire when `delta(last, record) > threshold`."""
        return cls(threshold, delta)

    def on_element(self, element: T, timestamp: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        last = ctx.get_value("last")
        if last is None:
            ctx.set_value("last", [element])
            return CONTINUE
        if self.delta(last[0], element) > self.threshold:
            ctx.set_value("last", [element])
            return FIRE
        return CONTINUE

    def on_event_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def on_processing_time(self, time: int, window: Any, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return CONTINUE

    def clear(self, window: Any, ctx: TriggerContext) -> None:
        """See Trigger."""
        ctx.set_value("last", None)


class ProcessingTimeoutTrigger(Trigger[T, W], Generic[T, W]):
    """Another trigger, and a firing when the clock has gone on by `timeout` since the window's first record.

    `reset_on_new_record`: since its last record. `clear_on_timeout` also drops the contents then. After Flink's
    ProcessingTimeoutTrigger.
    """

    def __init__(
        self,
        trigger: Trigger[T, W],
        timeout: Duration,
        *,
        reset_on_new_record: bool = False,
        clear_on_timeout: bool = True,
    ) -> None:
        self.trigger = trigger
        self.timeout = checked_duration(timeout, "The timeout of a ProcessingTimeoutTrigger")
        self.reset = reset_on_new_record
        self.purge = clear_on_timeout

    @classmethod
    def of(
        cls,
        trigger: Trigger[T, W],
        timeout: Duration,
        *,
        reset_on_new_record: bool = False,
        clear_on_timeout: bool = True,
    ) -> ProcessingTimeoutTrigger[T, W]:
        """`trigger` with a timeout."""
        return cls(trigger, timeout, reset_on_new_record=reset_on_new_record, clear_on_timeout=clear_on_timeout)

    def on_element(self, element: T, timestamp: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        result = self.trigger.on_element(element, timestamp, window, ctx)
        if result.is_fire:
            self.clear(window, ctx)
            return result
        due = ctx.get_value("timeout")
        if due is not None and self.reset:
            ctx.delete_processing_time_timer(due)
            due = None
        if due is None:
            due = ctx.get_current_processing_time() + self.timeout
            ctx.set_value("timeout", due)
            ctx.register_processing_time_timer(due)
        return result

    def on_event_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        return self._cleared(self.trigger.on_event_time(time, window, ctx), window, ctx)

    def on_processing_time(self, time: int, window: W, ctx: TriggerContext) -> TriggerResult:
        """See Trigger."""
        result = self.trigger.on_processing_time(time, window, ctx)
        if ctx.get_value("timeout") == time:
            result = FIRE_AND_PURGE if self.purge or result.is_purge else FIRE
        return self._cleared(result, window, ctx)

    def clear(self, window: W, ctx: TriggerContext) -> None:
        """See Trigger."""
        due = ctx.get_value("timeout")
        if due is not None:
            ctx.delete_processing_time_timer(due)
            ctx.set_value("timeout", None)
        self.trigger.clear(window, ctx)

    def _cleared(self, result: TriggerResult, window: W, ctx: TriggerContext) -> TriggerResult:
        if result.is_fire:
            self.clear(window, ctx)
        return result

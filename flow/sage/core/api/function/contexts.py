"""What process functions see beside the record: its time, its key, timers, side outputs. Made by operators."""

from __future__ import annotations

from math import ceil
from operator import index
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import FunctionContext
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.state.base import NO_KEY

if TYPE_CHECKING:
    from sage.core.runtime.operators.base import OperatorContext
    from sage.core.runtime.timers import TimerService as OperatorTimers

__all__ = ["KeyedProcessContext", "OnTimerContext", "ProcessContext", "TimerService"]

T = TypeVar("T")


class TimerService:
    """The time of an operator, and timers of the current key (PyFlink's TimerService). All times are milliseconds.

    There is one timer for each key and time, however often it is registered; a time between two milliseconds is the
    later one. On a stream without keys the times can be
    read, but timers cannot be registered.
    """

    __slots__ = ("_context", "_timers")

    def __init__(self, context: OperatorContext, timers: OperatorTimers | None) -> None:
        self._context = context
        self._timers = timers

    def current_watermark(self) -> int:
        """Event time has come to here: no record at or before it is expected. -2**63 before the first watermark."""
        return self._context.current_watermark

    def current_processing_time(self) -> int:
        """The clock, since the epoch."""
        return self._context.clock.now_ms()

    def register_event_time_timer(self, timestamp: int) -> None:
        """Call `on_timer` for the current key when the watermark reaches `timestamp`."""
        self._keyed().register_event_time(_moment(timestamp), self._key())

    def register_processing_time_timer(self, timestamp: int) -> None:
        """Call `on_timer` for the current key when the clock reaches `timestamp`."""
        self._keyed().register_processing_time(_moment(timestamp), self._key())

    def delete_event_time_timer(self, timestamp: int) -> None:
        """Forget a timer of the current key; one that does not exist is no error."""
        self._keyed().delete_event_time(_moment(timestamp), self._key())

    def delete_processing_time_timer(self, timestamp: int) -> None:
        """Forget a timer of the current key; one that does not exist is no error."""
        self._keyed().delete_processing_time(_moment(timestamp), self._key())

    def _keyed(self) -> OperatorTimers:
        if self._timers is None:
            raise PipelineError(
                f"{self._context.function.operator!r} cannot set timers",
                cause="a timer belongs to a key, and this function has none",
                hint="call key_by(...) first and use a keyed process function, from process_element or on_timer",
            )
        return self._timers

    def _key(self) -> Any:
        assert self._context.keyed is not None, "timers exist with keyed state"
        return self._context.keyed.key


class ProcessContext:
    """A record's surroundings, for one call. Good only during that call: do not keep it."""

    __slots__ = ("_domain", "_operator", "_time", "_timer_service", "function")

    def __init__(self, operator: OperatorContext, timers: OperatorTimers | None = None) -> None:
        self.function: FunctionContext = operator.function
        self._operator = operator
        self._timer_service = TimerService(operator, timers)
        self._time: int | None = None
        self._domain = "event_time"

    @property
    def key(self) -> Any:
        """The key of the record or timer that is being processed; None on a stream without keys."""
        keyed = self._operator.keyed
        return None if keyed is None or keyed.key is NO_KEY else keyed.key

    def timestamp(self) -> int | None:
        """The event time (ms) of the record, or of the timer; None when records have no time."""
        return self._time

    def timer_service(self) -> TimerService:
        """The operator's time, and timers."""
        return self._timer_service

    def output(self, tag: OutputTag[T], value: T) -> None:
        """Put a record out to a side output, with the time of the record that is being processed."""
        self._operator.out.output(tag_name(tag), value, self._time)


class KeyedProcessContext(ProcessContext):
    """As ProcessContext, on a keyed stream."""

    __slots__ = ()

    def get_current_key(self) -> Any:
        """The key of the record or timer that is being processed."""
        return self.key


class OnTimerContext(KeyedProcessContext):
    """What `on_timer` sees: the timer's key and time, and of which kind of time it was."""

    __slots__ = ()

    def use_timers(self, timers: OperatorTimers) -> None:
        """Called by the operator, whose timers exist only after the function that they call."""
        self._timer_service = TimerService(self._operator, timers)

    def time_domain(self) -> str:
        """event_time or processing_time."""
        return self._domain


def _moment(timestamp: Any) -> int:
    """The time of a timer in whole milliseconds. Raises PipelineError for what is no time."""
    if type(timestamp) is int:
        return timestamp
    try:
        return ceil(timestamp) if isinstance(timestamp, float) else index(timestamp)
    except (TypeError, ValueError, OverflowError) as error:
        raise PipelineError(
            "A timer needs a time in milliseconds since the epoch", cause=f"got {timestamp!r:.80}"
        ) from error

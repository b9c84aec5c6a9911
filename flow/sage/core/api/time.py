"""Event time: which time a record has, and how far event time has come (watermarks). Semantics of Flink's page
"Generating Watermarks" and of the classes of the same names.

https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/event-time/generating_watermarks/
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.windows.types import Duration, checked_duration, milliseconds

__all__ = [
    "Duration",
    "TimestampAssigner",
    "WatermarkAlignment",
    "WatermarkGenerator",
    "WatermarkOutput",
    "WatermarkStrategy",
    "milliseconds",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class TimestampAssigner(ABC, Generic[T]):
    """Gives a record its event time. A plain function of the record does it too."""

    @abstractmethod
    def extract_timestamp(self, value: T, record_timestamp: int | None) -> int:
        """Milliseconds since the epoch; `record_timestamp` is the time that the record has from its source, if any."""


class WatermarkOutput(Protocol):
    """Where a generator puts its watermarks."""

    def emit_watermark(self, timestamp: int) -> None:
        """No record at or before `timestamp` is expected any more. One that goes back is ignored."""

    def mark_idle(self) -> None:
        """This stream does not hold back others until its next record."""

    def mark_active(self) -> None:
        """It does again."""


class WatermarkGenerator(ABC, Generic[T_contra]):
    """Makes watermarks from records, from the clock, or both.

    It is not part of checkpoints: after a restore it begins anew, and event time stands still until it has caught up.
    """

    @abstractmethod
    def on_event(self, event: T_contra, event_timestamp: int, output: WatermarkOutput) -> None:
        """A record; a watermark put out here comes after it."""

    @abstractmethod
    def on_periodic_emit(self, output: WatermarkOutput) -> None:
        """Called every 200 ms, and after every 2,048 records, whichever comes first."""


@dataclass(slots=True, frozen=True)
class WatermarkAlignment:
    """Sources of a group wait for the slowest when they are more than `max_drift` ms ahead of it."""

    group: str
    max_drift: int
    interval: int


@dataclass(slots=True, frozen=True)
class WatermarkStrategy(Generic[T]):
    """How records get their time, and how watermarks are made. Every method returns a new strategy.

    Watermarks of the built-in strategies depend on the records alone. They are put out after every 2,048 records, after
    200 ms without, and before every record that is too late for them: so which records are late, and what windows
    contain, is the same whenever the same records come in the same order, however fast and in whatever batches.

    >>> strategy = (
    ...     WatermarkStrategy.for_bounded_out_of_orderness("5s")
    ...     .with_timestamp_assigner(lambda event: event["time"])
    ...     .with_idleness("1m")
    ... )
    >>> strategy.out_of_orderness, strategy.idleness
    (5000, 60000)
    """

    out_of_orderness: int | None = None
    generator: Callable[[], WatermarkGenerator[T]] | None = None
    assigner: Callable[[T], int] | TimestampAssigner[T] | None = None
    idleness: int | None = None
    alignment: WatermarkAlignment | None = None

    @classmethod
    def for_monotonous_timestamps(cls) -> WatermarkStrategy[Any]:
        """Times never go back: the watermark is 1 ms behind the latest (Flink's AscendingTimestampsWatermarks)."""
        return WatermarkStrategy(out_of_orderness=0)

    @classmethod
    def for_bounded_out_of_orderness(cls, bound: Duration) -> WatermarkStrategy[Any]:
        """A record comes at most `bound` later than one with a later time: the watermark is `bound` and 1 ms behind the
        latest time (Flink's BoundedOutOfOrdernessWatermarks)."""
        return WatermarkStrategy(out_of_orderness=checked_duration(bound, "The bound of out-of-orderness", least=0))

    @classmethod
    def for_generator(cls, generator: Callable[[], WatermarkGenerator[T]]) -> WatermarkStrategy[T]:
        """A generator of your own: a class, or a function that makes one; each subtask gets its own."""
        if not callable(generator):
            raise PipelineError(
                "for_generator needs a WatermarkGenerator class, or a function that makes one",
                cause=f"got {generator!r:.80}",
                hint="pass the class itself, not an instance",
            )
        return WatermarkStrategy(generator=generator)

    @classmethod
    def no_watermarks(cls) -> WatermarkStrategy[Any]:
        """Records get times, but event time does not advance before the end of the stream."""
        return WatermarkStrategy()

    def with_timestamp_assigner(self, assigner: Callable[[Any], int] | TimestampAssigner[Any]) -> WatermarkStrategy[T]:
        """The record's time in milliseconds: a function of the record, or a TimestampAssigner. Without one, the times
        that the source gave are kept."""
        if not callable(assigner) and not isinstance(assigner, TimestampAssigner):
            raise PipelineError(
                "with_timestamp_assigner needs a function of a record, or a TimestampAssigner",
                cause=f"got {assigner!r:.80}",
            )
        return replace(self, assigner=assigner)

    def with_idleness(self, timeout: Duration) -> WatermarkStrategy[T]:
        """A subtask without records for `timeout` (by the clock) is idle: it does not hold back the others."""
        return replace(self, idleness=checked_duration(timeout, "The timeout of idleness"))

    def with_watermark_alignment(
        self, group: str, max_drift: Duration, interval: Duration = "1s"
    ) -> WatermarkStrategy[T]:
        """Streams of one group go through event time together: one that is more than `max_drift` ahead of the slowest
        is slowed down to a batch each `interval` until that has caught up. Idle streams are not waited for. Works
        between the subtasks of one process."""
        return replace(
            self,
            alignment=WatermarkAlignment(
                str(group),
                checked_duration(max_drift, "The drift of an alignment", least=0),
                checked_duration(interval, "The interval of an alignment"),
            ),
        )

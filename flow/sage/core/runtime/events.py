"""What travels through channels, in order: batches of records, and control events between them.

Everything that is not a `Batch` is a `ControlEvent`. Because control events take the same way as the data, an event
that arrives says something about all records before it and none after it: that is what makes watermarks and
checkpoints correct (Chandy & Lamport 1985; Carbone et al., "Lightweight Asynchronous Snapshots", 2015).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "FINAL_WATERMARK",
    "NO_WATERMARK",
    "Barrier",
    "Batch",
    "CheckpointKind",
    "ControlEvent",
    "EndOfStream",
    "Item",
    "JobAborted",
    "LatencyMarker",
    "LoopProbe",
    "StreamStatus",
    "TraceContext",
    "Watermark",
]

NO_WATERMARK = -(2**63)
FINAL_WATERMARK = 2**63 - 1  # Flink's Watermark.MAX_WATERMARK: event time has ended


@dataclass(slots=True, frozen=True)
class TraceContext:
    """The span that made what follows, with the ids of W3C Trace Context (lower-case hexadecimal)."""

    trace_id: str
    span_id: str


@dataclass(slots=True)
class Batch:
    """Records in order. `timestamps` (event time, milliseconds) has one entry a record, or is None: without time.

    `trace`: all records come out of one record that is traced.
    """

    records: list[Any]
    timestamps: list[int] | None = None
    trace: TraceContext | None = None

    def __len__(self) -> int:
        return len(self.records)

    def cut(self, start: int, stop: int | None = None) -> Batch:
        """The records from `start` to before `stop` (the end) as a batch of their own."""
        times = self.timestamps
        return Batch(self.records[start:stop], None if times is None else times[start:stop])

    def split(self, size: int) -> list[Batch]:
        """In batches of at most `size`; itself when it is no longer."""
        if len(self.records) <= size:
            return [self]
        return [self.cut(start, start + size) for start in range(0, len(self.records), size)]


@dataclass(slots=True, frozen=True)
class EndOfStream:
    """No more records on this channel. `drained` is False when the job was stopped early (a savepoint): then event
    time has not ended, and windows and timers must not fire."""

    drained: bool = True


@dataclass(slots=True, frozen=True)
class Watermark:
    """No more records with an event time at or before `timestamp` (milliseconds) on this channel."""

    timestamp: int


@dataclass(slots=True, frozen=True)
class StreamStatus:
    """Whether a channel counts for the watermark of its receiver (Flink's WatermarkStatus): an idle one does not."""

    idle: bool


@dataclass(slots=True, frozen=True)
class LatencyMarker:
    """Sent by a source now and then; what it took from `created` (seconds, time.time) to a sink is the latency."""

    created: float
    operator: str
    subtask: int


@dataclass(slots=True, frozen=True)
class LoopProbe:
    """Goes round feedback edges to find out whether anything is left in them. `round` grows."""

    round: int


class CheckpointKind(enum.StrEnum):
    """What a barrier asks for. A savepoint is complete in itself and is never removed by the engine. Those that stop:
    sources give no more records after the barrier, and the job ends when it is complete."""

    CHECKPOINT = "checkpoint"
    SAVEPOINT = "savepoint"
    STOP_WITH_SAVEPOINT = "stop-with-savepoint"
    STOP_WITH_CHECKPOINT = "stop-with-checkpoint"

    @property
    def stops(self) -> bool:
        """Whether the job ends with it."""
        return self in (CheckpointKind.STOP_WITH_SAVEPOINT, CheckpointKind.STOP_WITH_CHECKPOINT)

    @property
    def is_savepoint(self) -> bool:
        """Whether it is complete in itself."""
        return self in (CheckpointKind.SAVEPOINT, CheckpointKind.STOP_WITH_SAVEPOINT)


@dataclass(slots=True, frozen=True)
class Barrier:
    """Separates the records of two checkpoints; `checkpoint_id` grows. `triggered_at` in seconds (time.time).

    `unaligned`: it overtakes the records that wait in channels, and these become part of the snapshot (Flink FLIP-76).
    `path`: the checkpoint's folder.
    """

    checkpoint_id: int
    kind: CheckpointKind = CheckpointKind.CHECKPOINT
    triggered_at: float = 0.0
    unaligned: bool = False
    path: str = ""


ControlEvent: TypeAlias = EndOfStream | Watermark | StreamStatus | LatencyMarker | LoopProbe | Barrier
Item: TypeAlias = Batch | ControlEvent


class JobAborted(Exception):  # noqa: N818 - stops a task's thread, is no failure of its own
    """The job was aborted or another task failed: stop now, without flushing."""

"""What travels through channels, in order: batches of records, and control events between them.

A batch is a plain list. Everything else is a `ControlEvent`. Because control events take the same way as the data, an
event that arrives says something about all records before it and none after it: that is what makes watermarks and
checkpoints correct (Chandy & Lamport 1985; Carbone et al., "Lightweight Asynchronous Snapshots", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Barrier", "Batch", "ControlEvent", "EndOfStream", "Item", "JobAborted", "Watermark"]


@dataclass(slots=True, frozen=True)
class EndOfStream:
    """No more records on this channel."""


@dataclass(slots=True, frozen=True)
class Watermark:
    """No more records with an event time at or before `timestamp` (milliseconds) on this channel."""

    timestamp: int


@dataclass(slots=True, frozen=True)
class Barrier:
    """Separates the records of two checkpoints; `checkpoint_id` grows."""

    checkpoint_id: int


Batch: TypeAlias = list[Any]
ControlEvent: TypeAlias = EndOfStream | Watermark | Barrier
Item: TypeAlias = Batch | ControlEvent


class JobAborted(Exception):  # noqa: N818 - stops a task's thread, is no failure of its own
    """The job was aborted or another task failed: stop now, without flushing."""

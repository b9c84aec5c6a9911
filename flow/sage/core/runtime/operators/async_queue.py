"""The order in which async results go on (after Flink's OrderedStreamElementQueue and UnorderedStreamElementQueue).

Watermarks and stream statuses are events: no result passes one, in either direction. Between two events results go on
in the order of their records, or in that in which they are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio

__all__ = ["Call", "CallQueue", "OrderedQueue", "UnorderedQueue"]


class Call:
    """A record in flight. `results`: what it puts out, once `done`; `side`: the same for side outputs."""

    __slots__ = (
        "deadline",
        "done",
        "error",
        "position",
        "record",
        "results",
        "segment",
        "side",
        "task",
        "time",
        "timed_out",
    )

    def __init__(self, record: Any, time: int | None, position: int) -> None:
        self.record = record
        self.time = time
        self.position = position
        self.results: list[Any] = []
        self.side: list[tuple[str, Any]] = []
        self.error: BaseException | None = None
        self.done = False
        self.timed_out = False
        self.deadline = 0.0
        self.task: asyncio.Task[None] | None = None
        self.segment: _Segment | None = None


Event: TypeAlias = int | bool  # a watermark; whether the stream is idle
Ready: TypeAlias = Call | tuple[Event]


class CallQueue(Protocol):
    """What is in flight, in the task's thread only."""

    pending: int

    def put(self, call: Call) -> None:
        """A record has come."""

    def put_event(self, event: Event) -> None:
        """A watermark or status has come."""

    def completed(self, call: Call) -> None:
        """`call.done` has become true."""

    def ready(self) -> Iterator[Ready]:
        """Takes out what may go on now: calls, and events as tuples of one."""

    def calls(self) -> list[Call]:
        """All calls, for a snapshot: in the order of the records, the unordered ones by segment."""

    def __len__(self) -> int:
        """Calls and events."""


class OrderedQueue:
    """First in, first out."""

    def __init__(self) -> None:
        self.pending = 0
        self._items: deque[Ready] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, call: Call) -> None:
        """See CallQueue."""
        self._items.append(call)
        self.pending += 1

    def put_event(self, event: Event) -> None:
        """See CallQueue."""
        self._items.append((event,))

    def completed(self, call: Call) -> None:
        """See CallQueue."""

    def ready(self) -> Iterator[Ready]:
        """See CallQueue."""
        items = self._items
        while items:
            first = items[0]
            if isinstance(first, Call):
                if not first.done:
                    return
                self.pending -= 1
            yield items.popleft()

    def calls(self) -> list[Call]:
        """See CallQueue."""
        return [item for item in self._items if isinstance(item, Call)]


class _Segment:
    """The calls between two events."""

    __slots__ = ("event", "finished", "unfinished")

    def __init__(self) -> None:
        self.unfinished: dict[Call, None] = {}
        self.finished: deque[Call] = deque()
        self.event: Event | None = None


class UnorderedQueue:
    """Between two events, first done, first out."""

    def __init__(self) -> None:
        self.pending = 0
        self._segments: deque[_Segment] = deque([_Segment()])

    def __len__(self) -> int:
        return self.pending + sum(1 for segment in self._segments if segment.event is not None)

    def put(self, call: Call) -> None:
        """See CallQueue."""
        call.segment = self._segments[-1]
        call.segment.unfinished[call] = None
        self.pending += 1

    def put_event(self, event: Event) -> None:
        """See CallQueue."""
        self._segments[-1].event = event
        self._segments.append(_Segment())

    def completed(self, call: Call) -> None:
        """See CallQueue."""
        assert call.segment is not None, "it was put"
        del call.segment.unfinished[call]
        call.segment.finished.append(call)

    def ready(self) -> Iterator[Ready]:
        """See CallQueue."""
        while True:
            first = self._segments[0]
            while first.finished:
                self.pending -= 1
                yield first.finished.popleft()
            if first.unfinished or first.event is None:
                return
            self._segments.popleft()
            yield (first.event,)

    def calls(self) -> list[Call]:
        """See CallQueue."""
        return [call for segment in self._segments for call in (*segment.finished, *segment.unfinished)]

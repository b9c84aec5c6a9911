"""Timers of both kinds of time, for one operator in one subtask (Flink's InternalTimerServiceImpl).

Timers of one time stand together in a bucket, so the heap holds each time once, however many keys wait for it: a
tumbling window costs one heap entry for all keys. Within a bucket they fire by namespace and then by key, both in the
order in which they were first set. Snapshots keep that order: a restored operator fires as the undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import msgspec

from sage.core.runtime.timers import TimerCallback
from sage.core.state.groups import group_of
from sage.core.state.serialization import dump_many, load_many

if TYPE_CHECKING:
    from sage.core.state.base import KeyedStateBackend

__all__ = ["BulkCallback", "HeapTimerService", "TimerHeap"]

BulkCallback = Callable[[int, "_Bucket"], None]  # timestamp (ms), namespaces and keys in order

_Bucket = dict[Hashable, dict[Any, None]]  # namespace → keys
_STALE = 1024  # times whose timers were all deleted, before the heap is made anew


class _Queue:
    """The timers of one service in one kind of time."""

    __slots__ = ("_firing", "_firing_at", "_heap", "buckets")

    def __init__(self) -> None:
        self.buckets: dict[int, _Bucket] = {}
        self._heap: list[int] = []
        self._firing_at: int | None = None
        self._firing: _Bucket = {}

    def add(self, timestamp: int, key: Any, namespace: Hashable) -> None:
        if timestamp == self._firing_at and key in self._firing.get(namespace, ()):
            return
        bucket = self.buckets.get(timestamp)
        if bucket is None:
            bucket = self.buckets[timestamp] = {}
            heappush(self._heap, timestamp)
        keys = bucket.get(namespace)
        if keys is None:
            bucket[namespace] = {key: None}
        else:
            keys[key] = None

    def add_keys(self, timestamp: int, keys: Iterable[Any], namespace: Hashable) -> None:
        """As `add` for each key; not for a time that is firing."""
        bucket = self.buckets.get(timestamp)
        if bucket is None:
            bucket = self.buckets[timestamp] = {}
            heappush(self._heap, timestamp)
        bucket.setdefault(namespace, {}).update(dict.fromkeys(keys))

    def delete(self, timestamp: int, key: Any, namespace: Hashable) -> None:
        if timestamp == self._firing_at:
            self._firing.get(namespace, {}).pop(key, None)
        bucket = self.buckets.get(timestamp)
        keys = None if bucket is None else bucket.get(namespace)
        if bucket is None or keys is None:
            return
        keys.pop(key, None)
        if not keys:
            del bucket[namespace]
        if not bucket:
            del self.buckets[timestamp]
            if len(self._heap) > 2 * len(self.buckets) + _STALE:
                self._heap[:] = self.buckets
                heapify(self._heap)

    def due(self) -> int | None:
        """The earliest time with a timer."""
        heap = self._heap
        while heap and heap[0] not in self.buckets:
            heappop(heap)
        return heap[0] if heap else None

    def fire(self, timestamp: int, keyed: KeyedStateBackend | None, service: HeapTimerService, *, event: bool) -> None:
        """Fire the timers of one time; those set meanwhile for the same time come in a bucket of their own."""
        callback = service.on_event_time if event else service.on_processing_time
        bulk = service.on_event_times if event else None
        bucket = self.buckets.pop(timestamp)
        if bulk is not None:
            bulk(timestamp, bucket)
            return
        self._firing_at, self._firing = timestamp, bucket
        try:
            for namespace, keys in bucket.items():
                for key in list(keys):
                    if keys.pop(key, self) is self or callback is None:
                        continue  # deleted by one that fired before
                    if keyed is not None:
                        keyed.key = key
                    callback(timestamp, key, namespace)
        finally:
            self._firing_at, self._firing = None, {}

    def frozen(self) -> list[tuple[int, Hashable, list[Any]]]:
        """Time, namespace and keys, in the order in which they will fire within a time."""
        return [(time, name, list(keys)) for time, bucket in self.buckets.items() for name, keys in bucket.items()]


class HeapTimerService:
    """The timers of one name. See TimerService.

    `on_event_times`, when set, is called instead of `on_event_time`: once for each time, with all namespaces and keys
    that wait for it; it sets the state's key itself, and must not set or delete timers of that time.
    """

    __slots__ = ("_event", "_processing", "name", "on_event_time", "on_event_times", "on_processing_time")

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_event_time: TimerCallback | None = None
        self.on_event_times: BulkCallback | None = None
        self.on_processing_time: TimerCallback | None = None
        self._event = _Queue()
        self._processing = _Queue()

    def register_event_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """See TimerService."""
        self._event.add(timestamp, key, namespace)

    def register_event_times(self, timestamp: int, keys: Iterable[Any], namespace: Hashable = None) -> None:
        """As `register_event_time` for each of the keys, in order."""
        self._event.add_keys(timestamp, keys, namespace)

    def register_processing_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """See TimerService."""
        self._processing.add(timestamp, key, namespace)

    def delete_event_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """See TimerService."""
        self._event.delete(timestamp, key, namespace)

    def delete_processing_time(self, timestamp: int, key: Any, namespace: Hashable = None) -> None:
        """See TimerService."""
        self._processing.delete(timestamp, key, namespace)

    @property
    def latest_event_time(self) -> int | None:
        """The last time for which there is a timer."""
        return max(self._event.buckets, default=None)

    @property
    def queues(self) -> tuple[_Queue, _Queue]:
        """Event time and processing time."""
        return self._event, self._processing


class TimerHeap:
    """The timers of an operator. See TimerServices. Without keyed state they are not in snapshots."""

    def __init__(self, keyed: KeyedStateBackend | None = None) -> None:
        self._keyed = keyed
        self._services: dict[str, HeapTimerService] = {}
        if keyed is not None:
            keyed.raw("timers", self)

    def service(
        self, name: str, on_event_time: TimerCallback | None, on_processing_time: TimerCallback | None
    ) -> HeapTimerService:
        """See TimerServices."""
        service = self._named(name)
        service.on_event_time = on_event_time
        service.on_processing_time = on_processing_time
        return service

    def advance(self, watermark: int) -> None:
        """See TimerServices."""
        self._fire(watermark, event=True)

    def fire_due(self, now_ms: int) -> bool:
        """See TimerServices."""
        return self._fire(now_ms, event=False)

    @property
    def next_processing_time(self) -> int | None:
        """See TimerServices."""
        due = [time for service in self._services.values() if (time := service.queues[1].due()) is not None]
        return min(due, default=None)

    @property
    def next_event_time(self) -> int | None:
        """The earliest event timer."""
        due = [time for service in self._services.values() if (time := service.queues[0].due()) is not None]
        return min(due, default=None)

    def dump(self) -> Iterator[tuple[int, bytes]]:
        """See RawState. Copied now; turned into bytes as the result is gone through, in any thread."""
        frozen = [
            (service.name, kind, *entry)
            for service in self._services.values()
            for kind, queue in enumerate(service.queues)
            for entry in queue.frozen()
        ]
        return _encoded(frozen)

    def load(self, parts: Iterable[tuple[int, bytes]]) -> None:
        """See RawState."""
        timers = [timer for _group, block in parts for timer in _decoded(block)]
        timers.sort(key=lambda timer: timer[:2])
        for timestamp, _position, name, kind, key, namespace in timers:
            self._named(name).queues[kind].add(timestamp, key, namespace)

    def _named(self, name: str) -> HeapTimerService:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = HeapTimerService(name)
        return service

    def _fire(self, limit: int, *, event: bool) -> bool:
        kind = 0 if event else 1
        fired = False
        while True:
            first: HeapTimerService | None = None
            earliest = limit
            for service in self._services.values():
                due = service.queues[kind].due()
                if due is not None and (due < earliest or (due == earliest and first is None)):
                    first, earliest = service, due
            if first is None:
                return fired
            first.queues[kind].fire(earliest, self._keyed, first, event=event)
            fired = True


_Frozen = tuple[str, int, int, Hashable, list[Any]]  # service, kind of time, timestamp, namespace, keys


def _encoded(frozen: list[_Frozen]) -> Iterator[tuple[int, bytes]]:
    """One block for each key group: columns, with names and namespaces written once."""
    names = list(dict.fromkeys(name for name, *_ in frozen))
    groups: dict[int, tuple[list[Any], list[list[int]], list[Hashable]]] = {}
    position = 0
    for name, kind, timestamp, namespace, keys in frozen:
        head = (names.index(name), kind, timestamp)
        for key in keys:
            position += 1
            group = group_of(key)
            if group not in groups:
                groups[group] = ([], [], [])
            kept, rows, spaces = groups[group]
            if not spaces or spaces[-1] != namespace:
                spaces.append(namespace)
            kept.append(key)
            rows.append([*head, position, len(spaces) - 1])
    for group, (kept, rows, spaces) in sorted(groups.items()):
        yield group, msgspec.msgpack.encode([names, rows, dump_many(kept), dump_many(spaces)])


def _decoded(block: bytes) -> Iterator[tuple[int, int, str, int, Any, Hashable]]:
    """(timestamp, position, service, kind of time, key, namespace) of each timer."""
    names, rows, kept, spaces = msgspec.msgpack.decode(block)
    namespaces = load_many(spaces)
    for (name, kind, timestamp, position, space), key in zip(rows, load_many(kept), strict=True):
        yield timestamp, position, names[name], kind, key, namespaces[space]

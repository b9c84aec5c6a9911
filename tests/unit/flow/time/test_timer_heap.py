"""Timers: order, one for each (time, key, namespace), snapshots by key group."""

import heapq
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.core.runtime.partition import key_group
from sage.core.runtime.timer_heap import TimerHeap
from sage.core.state.memory import MemoryKeyedState

pytestmark = pytest.mark.spec("K5")


class Timers(RuleBasedStateMachine):
    """A heap of timers against a set."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[tuple[str, int, Any, Any], None] = {}
        self.fired: list[Any] = []
        self.now = {"event": 0, "processing": 0}
        self.open(TimerHeap(MemoryKeyedState()))

    def open(self, heap: TimerHeap) -> None:
        self.heap = heap
        self.service = heap.service("test", self._fired("event"), self._fired("processing"))

    def _fired(self, kind: str) -> Any:
        return lambda time, key, namespace: self.fired.append((kind, time, key, namespace))

    @rule(
        kind=st.sampled_from(["event", "processing"]),
        time=st.integers(0, 30),
        key=st.sampled_from(["a", "b", 1, ("t", 2)]),
        namespace=st.sampled_from([None, (0, 5), "x"]),
    )
    def register(self, kind: str, time: int, key: Any, namespace: Any) -> None:
        register = self.service.register_event_time if kind == "event" else self.service.register_processing_time
        register(time, key, namespace)
        self.expected[kind, time, key, namespace] = None

    @rule(
        kind=st.sampled_from(["event", "processing"]),
        time=st.integers(0, 30),
        key=st.sampled_from(["a", "b", 1, ("t", 2)]),
        namespace=st.sampled_from([None, (0, 5), "x"]),
    )
    def delete(self, kind: str, time: int, key: Any, namespace: Any) -> None:
        delete = self.service.delete_event_time if kind == "event" else self.service.delete_processing_time
        delete(time, key, namespace)
        self.expected.pop((kind, time, key, namespace), None)

    @rule(kind=st.sampled_from(["event", "processing"]), step=st.integers(0, 8))
    def advance(self, kind: str, step: int) -> None:
        self.now[kind] += step
        self.fired.clear()
        if kind == "event":
            self.heap.advance(self.now[kind])
        else:
            assert self.heap.fire_due(self.now[kind]) is any(
                t[0] == kind and t[1] <= self.now[kind] for t in self.expected
            )
        due = [timer for timer in self.expected if timer[0] == kind and timer[1] <= self.now[kind]]
        assert sorted(map(repr, self.fired)) == sorted(map(repr, due))
        assert [timer[1] for timer in self.fired] == sorted(timer[1] for timer in due)
        for timer in due:
            del self.expected[timer]

    @rule(parts=st.integers(1, 3))
    def restore(self, parts: int) -> None:
        """Written and read back, in several pieces, as several subtasks would."""
        blocks = list(self.heap.dump())
        assert len({group for group, _ in blocks}) == len(blocks)
        assert {group for group, _ in blocks} == {key_group(key) for _, _, key, _ in self.expected}
        heap = TimerHeap(MemoryKeyedState())
        heap.load([block for part in range(parts) for block in blocks[part::parts]])
        self.open(heap)

    @invariant()
    def the_next_one_is_known(self) -> None:
        event = [time for kind, time, _, _ in self.expected if kind == "event"]
        processing = [time for kind, time, _, _ in self.expected if kind == "processing"]
        assert self.heap.next_event_time == min(event, default=None)
        assert self.heap.next_processing_time == min(processing, default=None)
        assert self.service.latest_event_time == max(event, default=None)


TestTimers = Timers.TestCase
TestTimers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def collecting(heap: TimerHeap, fired: list[Any]) -> Any:
    return heap.service("s", lambda time, key, namespace: fired.append((time, key)), None)


def test_timers_of_one_time_fire_in_the_order_in_which_they_were_set_also_after_a_restore() -> None:
    heap = TimerHeap(MemoryKeyedState())
    service = collecting(heap, [])
    keys = [f"key {number * 7919 % 100}" for number in range(100)]
    for key in keys:
        service.register_event_time(5, key, (0, 6))
    fired: list[Any] = []
    again = TimerHeap(MemoryKeyedState())
    again.load(list(heap.dump()))
    collecting(again, fired)
    again.advance(5)
    assert [key for _, key in fired] == keys


def test_a_callback_may_set_and_delete_timers_of_the_same_time() -> None:
    heap = TimerHeap()
    fired: list[Any] = []

    def on_timer(time: int, key: Any, namespace: Any) -> None:
        fired.append(key)
        if key == 1:
            service.delete_event_time(10, 2)
            service.register_event_time(10, 3)  # waits already
            service.register_event_time(10, 4)
            service.register_event_time(7, 5)  # in the past
            service.register_event_time(11, 6)

    service = heap.service("s", on_timer, None)
    for key in (1, 2, 3):
        service.register_event_time(10, key)
    heap.advance(10)
    assert fired == [1, 3, 5, 4]
    heap.advance(11)
    assert fired == [1, 3, 5, 4, 6]


def test_services_fire_together_in_order_of_time() -> None:
    heap, fired = TimerHeap(), []
    for name in ("first", "second"):
        service = heap.service(name, lambda time, key, namespace, name=name: fired.append((time, name)), None)  # type: ignore[misc]
        for time in (1, 3) if name == "second" else (2, 3):
            service.register_event_time(time, None)
    heap.advance(9)
    assert fired == [(1, "second"), (2, "first"), (3, "first"), (3, "second")]


def test_timers_that_are_put_off_again_and_again_do_not_pile_up() -> None:
    heap = TimerHeap()
    service = collecting(heap, [])
    for time in range(20_000):
        service.register_event_time(1_000_000 + time, "key")
        service.delete_event_time(1_000_000 + time, "key")
    queue = service.queues[0]
    assert len(queue._heap) < 3_000
    assert not queue.buckets
    assert heapq.nsmallest(1, queue._heap)[0] > 1_000_000
    assert heap.next_event_time is None


def test_a_snapshot_does_not_see_what_comes_after_it() -> None:
    heap = TimerHeap(MemoryKeyedState())
    service = collecting(heap, [])
    service.register_event_time(1, "a")
    dumped = heap.dump()
    service.register_event_time(1, "b")
    service.delete_event_time(1, "a")
    fired: list[Any] = []
    again = TimerHeap(MemoryKeyedState())
    again.load(list(dumped))
    collecting(again, fired)
    again.advance(9)
    assert fired == [(1, "a")]

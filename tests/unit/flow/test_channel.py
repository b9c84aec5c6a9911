"""Channels: order, bounds, and how control events of several senders are combined (SPEC K4, K6)."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.core.api import LocalEnvironment
from sage.core.graph import build_plan
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Barrier, Batch, EndOfStream, Item, JobAborted, Watermark
from sage.core.runtime.local.wiring import JobContext, wire
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import RuntimeSettings

END = EndOfStream()


def of(*records: object) -> Batch:
    return Batch(list(records))


def gate(senders: int, capacity: int = 100) -> InputGate:
    return InputGate([0] * senders, capacity, threading.Event())


def taken(one: InputGate) -> list[Item]:
    """Everything that can be taken now."""
    items: list[Item] = []
    while (got := one.take(0)) is not None:
        item = got[1]
        items.append(item)
        if item == END:
            break
    return items


def test_items_of_a_sender_keep_their_order() -> None:
    one = gate(1)
    for item in (of(1, 2), Watermark(5), of(3), Barrier(1), of(4), END):
        one.put(0, item)
    assert taken(one) == [of(1, 2), Watermark(5), of(3), Barrier(1), of(4), END]


def test_the_end_comes_when_all_have_ended() -> None:
    one = gate(2)
    one.put(0, END)
    assert taken(one) == []
    one.put(1, of(1))
    one.put(1, END)
    assert taken(one) == [of(1), END]


def test_a_watermark_is_the_least_of_all_senders() -> None:
    one = gate(2)
    one.put(0, Watermark(10))
    assert taken(one) == []
    one.put(1, Watermark(4))
    assert taken(one) == [Watermark(4)]
    one.put(1, Watermark(3))  # never goes back
    one.put(1, Watermark(12))
    assert taken(one) == [Watermark(10)]
    one.put(0, END)  # a sender that ended holds nothing back
    assert taken(one) == [Watermark(12)]


def test_a_barrier_holds_back_the_senders_that_delivered_it() -> None:
    one = gate(3)
    one.put(0, Barrier(1))
    one.put(0, of("after"))
    one.put(1, of("before"))
    one.put(2, END)
    assert taken(one) == [of("before")]
    one.put(1, Barrier(1))
    assert taken(one) == [Barrier(1), of("after")]


def test_a_sender_that_ends_completes_a_barrier() -> None:
    one = gate(2)
    one.put(0, Barrier(7))
    one.put(1, END)
    assert taken(one) == [Barrier(7)]


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 6), st.randoms(use_true_random=False))
def test_nothing_overtakes_a_barrier(senders: int, barriers: int, chance: random.Random) -> None:
    """Each sender numbers its records by the barriers before them; no record comes out on the wrong side."""
    one = gate(senders, 1000)
    pending = []
    for _ in range(senders):
        items: list[Item] = []
        for number in range(barriers + 1):
            items.extend(of(number) for _ in range(chance.randrange(3)))
            items.append(Barrier(number + 1) if number < barriers else END)
        pending.append(items)
    seen, out = 0, 0
    wanted = sum(isinstance(item, Batch) for items in pending for item in items)
    ended = False
    while not ended:
        ready = [index for index, items in enumerate(pending) if items]
        if ready and chance.random() < 0.7:
            sender = chance.choice(ready)
            one.put(sender, pending[sender].pop(0))
        got = one.take(0)
        item = None if got is None else got[1]
        if isinstance(item, Barrier):
            seen += 1
            assert item.checkpoint_id == seen
        elif isinstance(item, Batch):
            assert item == of(seen)
            out += 1
        ended = item == END
    assert seen == barriers
    assert out == wanted


def test_a_full_channel_waits_for_room() -> None:
    one = gate(1, capacity=2)
    done = threading.Event()

    def send() -> None:
        for number in range(5):
            one.put(0, of(number))
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    assert not done.wait(0.05)
    assert one.depth == 2
    assert [one.take(5) for _ in range(5)] == [(0, of(number)) for number in range(5)]
    assert done.wait(5)
    thread.join()


@pytest.mark.parametrize("waits", ["put", "take"])
def test_abort_wakes_who_waits(waits: str) -> None:
    aborted = threading.Event()
    one = InputGate([0], 1, aborted)
    caught = threading.Event()
    if waits == "put":
        one.put(0, of(1))

    def work() -> None:
        try:
            if waits == "put":
                one.put(0, of(2))
            else:
                one.take(None)
        except JobAborted:
            caught.set()

    thread = threading.Thread(target=work)
    thread.start()
    aborted.set()
    one.abort()
    assert caught.wait(5)
    thread.join()


def test_control_events_keep_their_place_in_a_task() -> None:
    """A task sends what it made of the records before an event before the event itself."""
    env = LocalEnvironment("task")
    env.from_collection([0]).flat_map(lambda x: [x, x]).sink(print)
    roomy = RuntimeSettings(channel_capacity=100)
    context = JobContext("id", "task", roomy, ServiceRegistry(), threading.Event(), threading.Event())
    tasks, (before, after) = wire(build_plan(env._graph, range(3), 1, chaining=False), context)
    sent: list[Item] = [of(1, 2), Watermark(5), of(3), of(4), Barrier(1), of(), Watermark(9), END]
    for item in sent:
        before.put(0, item)
    assert tasks[1].run() is None
    seen: list[Item] = []
    for item in taken(after):
        if isinstance(item, Batch) and seen and isinstance(seen[-1], Batch):
            seen[-1].records.extend(item.records)
        else:
            seen.append(item)
    assert seen == [of(1, 1, 2, 2), Watermark(5), of(3, 3, 4, 4), Barrier(1), Watermark(9), END]

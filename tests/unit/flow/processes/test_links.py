"""Channels over a socket: order, credit, abort, a peer that is gone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Barrier, Batch, EndOfStream, Item, JobAborted, Watermark
from sage.core.runtime.processes.frames import Connection
from sage.core.runtime.processes.links import CreditInput, Link, RemoteGate

CAPACITY = 4


class Pair:
    """A sender's worker and a receiver's, with one channel between them."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        self.errors: list[Exception] = []
        self.aborted = threading.Event()
        self.sender, self.receiver = (Link(Connection(end), self.errors.append) for end in (here, there))
        self.gate = InputGate([0], CAPACITY, self.aborted)
        self.remote = RemoteGate(9, self.sender, CAPACITY, self.aborted)
        self.remote.open(0)
        self.sender.receivers[9] = self.remote
        self.input = CreditInput(self.gate, 9, {0: self.receiver}, CAPACITY)
        self.threads = [
            threading.Thread(target=self.sender.run, args=({},), daemon=True),
            threading.Thread(target=self.receiver.run, args=({9: self.gate},), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_records_and_events_come_in_order(pair: Pair) -> None:
    def send() -> None:
        for number in range(50):
            pair.remote.put(0, Batch([number, (number, "x")], [number, number]))
            pair.remote.put(0, Watermark(number))
        pair.remote.put(0, EndOfStream())

    writer = threading.Thread(target=send)
    writer.start()
    taken: list[Item] = []
    while not taken or not isinstance(taken[-1], EndOfStream):
        item = pair.input.take(10, 10.0)
        assert item is not None
        taken.append(item[1])
    writer.join()
    batches = [item for item in taken if isinstance(item, Batch)]
    assert [batch.records for batch in batches] == [[number, (number, "x")] for number in range(50)]
    assert batches[3].timestamps == [3, 3]
    assert [item.timestamp for item in taken if isinstance(item, Watermark)] == list(range(50))
    assert pair.errors == []


def test_no_more_batches_are_on_their_way_than_there_is_credit(pair: Pair) -> None:
    sent = []

    def send() -> None:
        for number in range(20):
            pair.remote.put(0, Batch([number]))
            sent.append(number)

    writer = threading.Thread(target=send)
    writer.start()
    deadline = time.monotonic() + 10
    while pair.gate.depth < CAPACITY and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert sent == list(range(CAPACITY))
    for _ in range(20):
        assert pair.input.take(10, 10.0) is not None
    writer.join(10)
    assert sent == list(range(20))


def test_a_barrier_that_overtakes_needs_no_credit(pair: Pair) -> None:
    for number in range(CAPACITY):
        pair.remote.put(0, Batch([number]))
    pair.remote.put(0, Batch([CAPACITY]), force=True)
    pair.remote.put(0, Barrier(1, unaligned=True), force=True)
    taken = pair.input.take(10, 10.0)
    while taken is not None and isinstance(taken[1], Batch):  # those that were there before the barrier was
        taken = pair.input.take(10, 10.0)
    assert taken is not None
    assert isinstance(taken[1], Barrier)


def test_the_receiver_tells_how_much_it_can_digest(pair: Pair) -> None:
    pair.gate.preferred = 77
    for number in range(CAPACITY):
        pair.remote.put(0, Batch([number]))
    for _ in range(CAPACITY):
        pair.input.take(10, 10.0)
    deadline = time.monotonic() + 10
    while pair.remote.preferred != 77 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pair.remote.preferred == 77


@pytest.mark.parametrize("how", ["abort", "gone"])
def test_a_sender_that_waits_for_credit_is_woken(pair: Pair, how: str) -> None:
    ended = threading.Event()

    def send() -> None:
        try:
            while True:
                pair.remote.put(0, Batch([1]))
        except JobAborted:
            ended.set()

    writer = threading.Thread(target=send)
    writer.start()
    if how == "abort":
        pair.aborted.set()
        pair.remote.wake()
    else:
        pair.receiver.close()
    assert ended.wait(10)
    writer.join()


def test_what_cannot_be_read_is_told(pair: Pair) -> None:
    class Gone:
        def __reduce__(self) -> tuple[object, ...]:
            return int, ("no number",)

    pair.remote.put(0, Batch([Gone()]))
    pair.remote.put(0, Batch([2]))
    taken = pair.input.take(10, 10.0)
    assert taken is not None
    assert isinstance(pair.errors[0], ValueError)

"""Bells and what stands on them: no ring is missed, whoever comes first."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest
from tests.unit.flow.runtime.harness import END, of

from sage.core.runtime.bell import Bell
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Batch, EndOfStream, Watermark
from sage.core.runtime.inputs import ReaderInput


def test_a_ring_between_arming_and_sleeping_is_not_missed() -> None:
    bell = Bell()
    bell.arm()
    bell.ring()
    assert bell.sleep(10)


def test_who_does_not_sleep_is_not_woken_later() -> None:
    bell = Bell()
    bell.ring()
    bell.arm()
    bell.disarm()
    bell.ring()
    bell.arm()
    assert not bell.sleep(0.01)


def test_two_ring_at_once() -> None:
    bell = Bell()
    for _ in range(500):
        bell.arm()
        threads = [threading.Thread(target=bell.ring) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert bell.sleep(10)
        for thread in threads:
            thread.join()


def test_every_ring_of_many_comes_through() -> None:
    """Two threads hand a token to and fro; one missed ring would hang."""
    here, there, count = Bell(), Bell(), 5000
    tokens: list[deque[int]] = [deque(), deque()]

    def play(own: Bell, other: Bell, mine: deque[int], theirs: deque[int]) -> None:
        for number in range(count):
            while not mine:
                own.arm()
                if mine:
                    own.disarm()
                else:
                    assert own.sleep(30)
            mine.popleft()
            theirs.append(number)
            other.ring()

    player = threading.Thread(target=play, args=(there, here, tokens[1], tokens[0]))
    player.start()
    tokens[0].append(0)
    play(here, there, tokens[0], tokens[1])
    player.join(30)
    assert not player.is_alive()


@pytest.mark.parametrize("capacity", [1, 3])
def test_senders_in_threads_lose_nothing_and_keep_their_order(capacity: int) -> None:
    gate = InputGate([0, 1, 1], capacity, threading.Event())
    count = 1500

    def send(sender: int) -> None:
        for number in range(count):
            gate.put(sender, of((sender, number), at=[number]))
            if number % 100 == 99:
                gate.put(sender, Watermark(number))
        gate.put(sender, END)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
    for thread in threads:
        thread.start()
    got: dict[int, list[int]] = {0: [], 1: [], 2: []}
    watermark = -1
    while not isinstance((taken := gate.take(30) or (0, END))[1], EndOfStream):
        port, item = taken
        if isinstance(item, Batch):
            ((sender, number),) = item.records
            assert number > watermark
            assert port == min(sender, 1)
            got[sender].append(number)
        elif isinstance(item, Watermark):
            watermark = item.timestamp
    for thread in threads:
        thread.join(30)
    assert got == {sender: list(range(count)) for sender in range(3)}
    assert watermark == count - 1


@pytest.mark.parametrize("pause", [0.0, 0.0005])
def test_a_reader_gives_every_record_once(pause: float) -> None:
    count = 200 if pause else 30_000

    def records() -> object:
        for number in range(count):
            if pause and number % 3 == 0:
                time.sleep(pause)
            yield number

    source = ReaderInput(
        lambda: iter(records()),  # type: ignore[call-overload]
        name="numbers",
        capacity=64,
        stopping=threading.Event(),
        aborted=threading.Event(),
    )
    seen: list[int] = []
    while not isinstance((taken := source.take(50, 30) or (0, END))[1], EndOfStream):
        assert isinstance(taken[1], Batch)
        assert len(taken[1]) <= 50
        seen += taken[1].records
    source.close()
    assert seen == list(range(count))


def test_waking_ends_a_wait() -> None:
    gate = InputGate([0], 1, threading.Event())
    threading.Timer(0.01, gate.wake).start()
    assert gate.take(30) is None

"""Barriers of several channels: aligned, overtaking, at least once (SPEC K6)."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.flow.checkpoint.harness import ManualClock

from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Barrier, Batch, CheckpointKind, EndOfStream

pytestmark = pytest.mark.spec("K6")


def gate(channels: int, **options: Any) -> InputGate:
    return InputGate([0] * channels, 1000, threading.Event(), **options)


def batch(*records: int) -> Batch:
    return Batch(list(records))


def taken(of: InputGate) -> list[Any]:
    """Everything that comes out now: records as lists, events as they are."""
    found: list[Any] = []
    while (item := of.take(0)) is not None:
        found.append(item[1].records if isinstance(item[1], Batch) else item[1])
    return found


def test_a_channel_that_delivered_its_barrier_waits_for_the_others() -> None:
    both = gate(2)
    for item in (batch(1), Barrier(1), batch(2)):
        both.put(0, item)
    assert taken(both) == [[1]]
    both.put(1, batch(3))
    both.put(1, Barrier(1))
    assert taken(both) == [[3], Barrier(1), [2]]


def test_at_least_once_no_channel_waits() -> None:
    both = gate(2, exactly_once=False)
    for item in (Barrier(1), batch(2)):
        both.put(0, item)
    assert taken(both) == [[2]]
    both.put(1, Barrier(1))
    assert taken(both) == [Barrier(1)]


def test_an_ended_channel_needs_no_barrier() -> None:
    both = gate(2)
    both.put(0, Barrier(1))
    both.put(1, batch(3))
    both.put(1, EndOfStream())
    assert taken(both) == [[3], Barrier(1)]


def test_an_unaligned_barrier_comes_out_first_and_takes_along_what_it_passed() -> None:
    both = gate(2)
    kept: list[Any] = []
    for item in (batch(1), batch(2), Barrier(1, unaligned=True), batch(3)):
        both.put(0, item)
    both.put(1, batch(10))
    assert both.take(0) == (0, Barrier(1, unaligned=True))
    assert both.when_captured(1, lambda records: kept.append([r for _, b in records for r in b.records]))
    both.put(1, batch(11))
    assert kept == []  # the barrier of channel 1 is still to come
    both.put(1, Barrier(1, unaligned=True))
    both.put(1, batch(12))
    assert kept == [[1, 2, 10, 11]]
    assert sorted(record for records in taken(both) for record in records) == [1, 2, 3, 10, 11, 12]


def test_an_aligned_barrier_overtakes_when_alignment_takes_too_long() -> None:
    clock = ManualClock()
    both = gate(2, alignment_timeout=5.0)
    both._alignment._clock = clock.monotonic
    both.put(0, Barrier(1))
    both.put(0, batch(2))
    both.put(1, batch(3))
    assert taken(both) == [[3]]
    clock.now += 4.9
    assert taken(both) == []
    clock.now += 0.1
    assert taken(both) == [Barrier(1, unaligned=True), [2]]
    both.put(1, batch(4))
    both.put(1, Barrier(1))
    kept: list[Any] = []
    assert both.when_captured(1, kept.append)
    assert kept == [[(0, batch(4))]]  # 3 was processed before the snapshot, 2 lies behind the barrier
    assert taken(both) == [[4]]
    assert both.alignment_s == 5.0


@pytest.mark.parametrize("kind", [k for k in CheckpointKind if k is not CheckpointKind.CHECKPOINT])
def test_savepoints_and_stops_never_overtake(kind: CheckpointKind) -> None:
    both = gate(2, alignment_timeout=0.0)
    both.put(0, Barrier(1, kind))
    both.put(1, batch(3))
    assert taken(both) == [[3]]
    both.put(1, Barrier(1, kind))
    assert taken(both) == [Barrier(1, kind)]


def test_records_of_a_restored_checkpoint_come_before_all_others() -> None:
    one = gate(1)
    one.put(0, Barrier(2, unaligned=True))
    one.restore([(0, batch(1)), (0, batch(2))])
    assert taken(one) == [[1], [2], Barrier(2, unaligned=True)]


def test_a_barrier_that_overtakes_makes_room_for_its_sender() -> None:
    one = InputGate([0], 1, threading.Event())
    one.put(0, Barrier(1, unaligned=True))
    sender = threading.Thread(target=one.put, args=(0, batch(1)), daemon=True)
    sender.start()
    assert one.take(5) == (0, Barrier(1, unaligned=True))
    assert one.take(5) == (0, batch(1))
    sender.join(5)


def test_nothing_is_captured_for_an_aborted_checkpoint() -> None:
    both = gate(2)
    kept: list[Any] = []
    both.put(0, Barrier(1, unaligned=True))
    assert taken(both) == [Barrier(1, unaligned=True)]
    assert both.when_captured(1, kept.append)
    both.checkpoint_aborted(1)
    both.put(1, batch(1))
    both.put(1, Barrier(1, unaligned=True))
    assert kept == []
    assert not both.when_captured(1, kept.append)


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_late_barrier_of_an_aborted_checkpoint_stands_for_no_other(exactly_once: bool) -> None:
    both = gate(2, exactly_once=exactly_once)
    both.put(0, Barrier(2))  # its sender had no part in the first checkpoint, or is far ahead
    assert taken(both) == []
    for item in (batch(1), Barrier(1), batch(2)):
        both.put(1, item)
    assert taken(both) == [[1], [2]]
    both.put(1, Barrier(2))
    assert taken(both) == [Barrier(2)]


class Cuts:
    """Reads a gate and remembers what belongs to each snapshot: what was processed, and what was captured."""

    def __init__(self, of: InputGate) -> None:
        self.gate = of
        self.processed: list[int] = []
        self.found: dict[int, list[int]] = {}

    def read(self, limit: int) -> None:
        for _ in range(limit):
            taken = self.gate.take(0)
            if taken is None:
                return
            if isinstance(taken[1], Batch):
                self.processed.extend(taken[1].records)
            elif isinstance(taken[1], Barrier):
                self._cut(taken[1])

    def _cut(self, barrier: Barrier) -> None:
        before = list(self.processed)

        def told(records: list[tuple[int, Batch]]) -> None:
            self.found[barrier.checkpoint_id] = sorted(before + [r for _, b in records for r in b.records])

        if not (barrier.unaligned and self.gate.when_captured(barrier.checkpoint_id, told)):
            told([])


def streams(chance: random.Random, lengths: list[int]) -> list[list[Any]]:
    """Single records with two barriers at random places."""
    sent = []
    for channel, length in enumerate(lengths):
        items: list[Any] = [batch(channel * 1000 + number) for number in range(length)]
        items.insert(chance.randint(0, length), Barrier(1))
        items.insert(chance.randint(items.index(Barrier(1)) + 1, len(items)), Barrier(2))
        sent.append(items)
    return sent


def records_before(sent: list[list[Any]], checkpoint: int) -> list[int]:
    before = [item for items in sent for item in items[: items.index(Barrier(checkpoint))]]
    return sorted(record for item in before if isinstance(item, Batch) for record in item.records)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    timeout=st.sampled_from([None, 0.0, 3.0]),
)
def test_every_snapshot_is_a_consistent_cut(seed: int, lengths: list[int], timeout: float | None) -> None:
    """Whatever the order: what was processed at barrier n and what was captured for it is what was sent before it."""
    chance = random.Random(seed)
    clock = ManualClock()
    cuts = Cuts(gate(len(lengths), alignment_timeout=timeout))
    cuts.gate._alignment._clock = clock.monotonic
    sent = streams(chance, lengths)
    waiting = [list(items) for items in sent]
    while any(waiting) or len(cuts.found) < 2:
        # The second checkpoint begins when the first is complete, as the coordinator does it.
        ready = [c for c, items in enumerate(waiting) if items and (items[0] != Barrier(2) or 1 in cuts.found)]
        if ready and chance.random() < 0.6:
            channel = chance.choice(ready)
            cuts.gate.put(channel, waiting[channel].pop(0))
        else:
            cuts.read(chance.randint(1, 4))
        clock.now += chance.choice([0.0, 1.0])
    cuts.read(1000)
    assert cuts.found == {1: records_before(sent, 1), 2: records_before(sent, 2)}
    assert sorted(cuts.processed) == sorted(
        r for items in sent for i in items if isinstance(i, Batch) for r in i.records
    )

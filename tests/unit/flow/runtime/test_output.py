"""How an output spreads records over its receivers (names as in Flink's DataStream)."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.flow.runtime.harness import of, taken

from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionSpec, OperatorKind, Partitioning
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import FINAL_WATERMARK, Batch, Item, LatencyMarker, Watermark
from sage.core.runtime.output import Output
from sage.core.runtime.partition import key_group

KEY = FunctionSpec(lambda x: x % 5, OperatorKind.KEY_BY, Origin("file.py", 1))


def sent(
    partitioning: Partitioning, receivers: int, *items: Item, subtask: int = 0, senders: int = 1
) -> list[list[Item]]:
    """What each receiver gets."""
    gates = [InputGate([0], 1000, threading.Event()) for _ in range(receivers)]
    for gate in gates:
        gate.preferred = 1000
    key = (KEY, KEY.target) if partitioning is Partitioning.HASH else None
    output = Output(
        [(gate, 0) for gate in gates], partitioning, key, size=100, timeout=10, subtask=subtask, senders=senders
    )
    for item in items:
        if isinstance(item, Batch):
            output.send(item)
        else:
            output.event(item)
    output.flush()
    return [taken(gate) for gate in gates]


def test_rebalance_deals_in_turn() -> None:
    assert sent(Partitioning.REBALANCE, 2, of(1, 2, 3, at=[10, 20, 30]), Watermark(5), of(4, at=[40])) == [
        [of(1, 3, at=[10, 30]), Watermark(5)],
        [of(2, at=[20]), Watermark(5), of(4, at=[40])],
    ]


def test_broadcast_gives_everything_to_all() -> None:
    assert sent(Partitioning.BROADCAST, 3, of(1, 2)) == [[of(1, 2)]] * 3


def test_global_gives_everything_to_the_first_and_events_to_all() -> None:
    assert sent(Partitioning.GLOBAL, 2, of(1, 2), Watermark(3), of(4)) == [
        [of(1, 2), Watermark(3), of(4)],
        [Watermark(3)],
    ]


@pytest.mark.parametrize(("senders", "receivers"), [(2, 4), (4, 2), (3, 5), (1, 3), (3, 3)])
def test_rescale_gives_each_sender_its_share(senders: int, receivers: int) -> None:
    """Flink: senders below receivers: each has receivers of its own; above: several share one."""
    reached = []
    for subtask in range(senders):
        got = sent(Partitioning.RESCALE, receivers, of(*range(100)), subtask=subtask, senders=senders)
        reached.append([index for index, items in enumerate(got) if items])
        assert sorted(record for items in got for item in items for record in item.records) == list(range(100))  # type: ignore[union-attr]
    assert sorted({index for shares in reached for index in shares}) == (
        list(range(receivers)) if senders <= receivers else sorted({s * receivers // senders for s in range(senders)})
    )
    if senders <= receivers:
        assert sum(len(share) for share in reached) == receivers
    else:
        assert all(len(share) == 1 for share in reached)


@given(st.lists(st.integers(0, 1000)), st.integers(2, 5))
def test_hash_keeps_keys_together_with_their_times(records: list[int], receivers: int) -> None:
    got = sent(Partitioning.HASH, receivers, of(*records, at=[record * 10 for record in records]))
    for target, items in enumerate(got):
        for item in items:
            assert isinstance(item, Batch)
            assert item.timestamps == [record * 10 for record in item.records]
            assert item.records == [record for record in records if record in set(item.records)]
            assert all(key_group(record % 5) * receivers // 128 == target for record in item.records)
    assert sum(len(item) for items in got for item in items if isinstance(item, Batch)) == len(records)


def test_a_latency_marker_goes_one_way_and_the_last_watermark_with_the_end() -> None:
    marker = LatencyMarker(1.0, "source", 0)
    got = sent(Partitioning.REBALANCE, 2, marker, Watermark(FINAL_WATERMARK))
    assert sorted(map(len, got)) == [0, 1]


def test_time_that_a_full_receiver_costs_is_measured() -> None:
    gate = InputGate([0], 1, threading.Event())
    output = Output([(gate, 0)], Partitioning.FORWARD, None, size=100, timeout=10)
    output.send(of(1))
    output.flush()
    threading.Timer(0.02, gate.take, [1]).start()
    output.send(of(2))
    output.flush()
    assert output.meter.blocked_s >= 0.01

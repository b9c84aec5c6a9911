"""Operators of the API keep their state over restarts and with another parallelism (SPEC K5, K6)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.operator_harness import OperatorHarness, Snapshots, spec

from sage.core.api import LocalEnvironment
from sage.core.api.function import AggregateFunction, BroadcastProcessFunction, KeyedCoProcessFunction
from sage.core.api.function import KeyedProcessFunction as Keyed
from sage.core.api.state import MapStateDescriptor, ValueStateDescriptor
from sage.core.graph.spec import FunctionKind
from sage.core.runtime.operators.aggregate import AggregateFactory, CountFactory
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.broadcast import BroadcastFactory
from sage.core.runtime.operators.co_process import CoFactory
from sage.core.runtime.operators.process import ProcessFactory
from sage.core.runtime.operators.regular_join import JoinFactory
from sage.core.runtime.partition import KEY_GROUPS, key_group

Record = tuple[str, int]  # key, time
RULES: MapStateDescriptor[str, int] = MapStateDescriptor("rules")


def key(record: Record) -> str:
    return record[0]


class Counts(Keyed[str, Record, Any]):
    def open(self, context: Any) -> None:
        self.count = context.get_state(ValueStateDescriptor("count", 0))

    def process_element(self, value: Record, context: Any, out: Any) -> None:
        self.count.update(self.count.value() + 1)
        context.timer_service().register_event_time_timer(value[1] + 5)
        out.collect((value[0], self.count.value()))

    def on_timer(self, timestamp: int, context: Any, out: Any) -> None:
        out.collect((context.key, "timer", timestamp, self.count.value()))


class Joined(KeyedCoProcessFunction[str, Record, Record, Any]):
    def open(self, context: Any) -> None:
        self.sums = context.get_map_state(MapStateDescriptor("sums"))

    def process_element1(self, value: Record, context: Any, out: Any) -> None:
        self._add("first", value, context, out)

    def process_element2(self, value: Record, context: Any, out: Any) -> None:
        self._add("second", value, context, out)

    def on_timer(self, timestamp: int, context: Any, out: Any) -> None:
        out.collect((context.get_current_key(), timestamp, sorted(self.sums.items())))

    def _add(self, name: str, value: Record, context: Any, out: Any) -> None:
        self.sums.put(name, (self.sums.get(name) or 0) + value[1])
        context.timer_service().register_event_time_timer(value[1] + 3)
        out.collect(sorted(self.sums.items()))


class Sums(AggregateFunction[Record, list[int], int]):
    def create_accumulator(self) -> list[int]:
        return [0]

    def add(self, value: Record, accumulator: list[int]) -> list[int]:
        accumulator[0] += value[1]
        return accumulator

    def get_result(self, accumulator: list[int]) -> int:
        return accumulator[0]


class Ruled(BroadcastProcessFunction[Record, Record, Any]):
    def process_element(self, value: Record, context: Any, out: Any) -> None:
        out.collect((value, sorted(context.get_broadcast_state(RULES).items())))

    def process_broadcast_element(self, value: Record, context: Any, out: Any) -> None:
        context.get_broadcast_state(RULES).put(*value)


FACTORIES: dict[str, tuple[Callable[[], Operator], int]] = {
    "keyed process": (ProcessFactory(spec(Counts, FunctionKind.KEYED_PROCESS), keyed=True), 1),
    "co process": (CoFactory(FunctionKind.KEYED_CO_PROCESS, (spec(Joined, FunctionKind.KEYED_CO_PROCESS),)), 2),
    "join": (JoinFactory(spec(lambda a, b: (a, b), FunctionKind.JOIN), None), 2),
    "aggregate": (AggregateFactory(spec(Sums, FunctionKind.AGGREGATE)), 1),
    "count": (CountFactory(), 1),
    "broadcast": (BroadcastFactory(spec(Ruled, FunctionKind.BROADCAST_PROCESS), ("rules",), keyed=False), 2),
}
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), min_size=1, max_size=4),
        st.integers(0, 40),
    ),
    max_size=6,
)


def selectors(name: str) -> list[Any]:
    return [None, None] if name == "broadcast" else [key] * FACTORIES[name][1]


def step(harness: OperatorHarness, ports: int, port: int, records: list[Record], watermark: int) -> None:
    harness.process(records, [time for _, time in records], port % ports)
    harness.watermark(watermark)


@pytest.mark.spec("K6")
@pytest.mark.parametrize("name", FACTORIES)
@settings(deadline=None, max_examples=8)
@given(steps=STEPS, restarts=st.sets(st.integers(0, 5)))
def test_a_restart_changes_nothing(name: str, steps: list[Any], restarts: set[int]) -> None:
    factory, ports = FACTORIES[name]
    undisturbed = OperatorHarness(factory, selectors(name))
    restarted = OperatorHarness(factory, selectors(name))
    for number, (port, records, watermark) in enumerate(steps):
        if number in restarts:
            restarted.restart()
            restarted.context.current_watermark = undisturbed.context.current_watermark
        step(undisturbed, ports, port, records, watermark)
        step(restarted, ports, port, records, watermark)
    assert restarted.output == undisturbed.output


def rescaled(name: str, before: list[Snapshots], parallelism: int) -> list[OperatorHarness]:
    parts = [part for snapshots in before for part in snapshots]
    return [
        OperatorHarness(FACTORIES[name][0], selectors(name), subtask=subtask, parallelism=parallelism, restored=parts)
        for subtask in range(parallelism)
    ]


@pytest.mark.spec("K6")
@pytest.mark.parametrize("name", FACTORIES)
@settings(deadline=None, max_examples=8)
@given(steps=STEPS, parallelisms=st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_every_key_keeps_its_state_with_another_parallelism(
    name: str, steps: list[Any], parallelisms: list[int]
) -> None:
    factory, ports = FACTORIES[name]
    single = OperatorHarness(factory, selectors(name))
    subtasks = rescaled(name, [], 1)
    outputs: list[Any] = []
    for number, (port, records, watermark) in enumerate(steps):
        reached = single.context.current_watermark
        step(single, ports, port, records, watermark)
        if number % 2 == 0:
            parallelism = parallelisms[number // 2 % len(parallelisms)]
            outputs += [result for harness in subtasks for result in harness.output]
            subtasks = rescaled(name, [harness.snapshot() for harness in subtasks], parallelism)
        for index, harness in enumerate(subtasks):
            harness.context.current_watermark = reached  # event time is not part of a snapshot: sources replay it
            if name == "broadcast" and port % ports == 1:
                mine = records
            elif name == "broadcast":
                mine = records[index :: len(subtasks)]
            else:
                mine = [r for r in records if key_group(r[0]) * len(subtasks) // KEY_GROUPS == index]
            if mine:
                harness.process(mine, [time for _, time in mine], port % ports)
            harness.watermark(watermark)
    outputs += [result for harness in subtasks for result in harness.output]
    assert sorted(map(repr, outputs)) == sorted(map(repr, single.output))


@pytest.mark.spec("K5")
def test_the_same_in_rocksdb(tmp_path: pathlib.Path) -> None:
    """State on disk gives the results of state in memory; an accumulator may be changed in place."""
    records = [(letter, number) for number in range(40) for letter in "abc"]

    def results(config: dict[str, Any]) -> list[list[Any]]:
        env = LocalEnvironment("kept", config)
        outs: list[list[Any]] = [[] for _ in range(4)]
        keyed = env.from_collection(records).key_by(key)
        keyed.count().sink(outs[0].append)
        keyed.aggregate(Sums).sink(outs[1].append)
        keyed.process(Counts).sink(outs[2].append)
        other = env.from_collection(records[:9]).key_by(key)
        keyed.connect(other).join(lambda a, b: (a, b)).sink(outs[3].append)
        env.submit()
        return [*outs[:3], sorted(outs[3])]

    on_disk = {"state.backend": "rocksdb", "state.dir": str(tmp_path / "state")}
    assert results(on_disk) == results({})

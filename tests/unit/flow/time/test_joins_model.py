"""Joins against plain nested loops that follow Flink's rules."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.operator_harness import OperatorHarness, spec
from tests.helpers.window_model import ModelSettings, WindowModel

from sage.core.api.windows import EventTimeSessionWindows, SlidingEventTimeWindows, TumblingEventTimeWindows
from sage.core.graph.spec import FunctionKind
from sage.core.runtime.operators.interval_join import IntervalJoinFactory
from sage.core.runtime.operators.window_joins import WindowJoinFactory
from sage.core.runtime.operators.windows import WindowSpec

pytestmark = pytest.mark.spec("K4")

NEVER = -(2**63)
KEYS = [lambda record: record[0], lambda record: record[0]]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """("batch", port, [(key, time, number)]), ("watermark", time) or ("restart",)."""
    result: list[tuple[Any, ...]] = []
    watermark, number = -20, 0
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["batch", "batch", "batch", "watermark", "restart"]))
        if kind == "batch":
            records = []
            for key, time in draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-10, 40)), max_size=6)):
                number += 1
                records.append((key, time, number))
            result.append(("batch", draw(st.integers(0, 1)), records))
        elif kind == "watermark":
            watermark += draw(st.integers(1, 20))
            result.append(("watermark", watermark))
        else:
            result.append(("restart",))
    return [*result, ("watermark", watermark + 200)]


class IntervalModel:
    """Every record is kept until the watermark has come to its clean-up time."""

    def __init__(self, lower: int, upper: int) -> None:
        self.lower, self.upper = lower, upper
        self.watermark = NEVER
        self.kept: tuple[list[Any], list[Any]] = ([], [])
        self.pairs: list[tuple[Any, Any]] = []
        self.late: list[int] = []

    def record(self, port: int, record: Any) -> None:
        key, time, number = record
        if time < self.watermark:
            self.late.append(number)
            return
        self.kept[port].append(record)
        for other in sorted(self.kept[1 - port], key=lambda other: other[1]):
            left, right = (record, other) if port == 0 else (other, record)
            if other[0] == key and left[1] + self.lower <= right[1] <= left[1] + self.upper:
                self.pairs.append((left, right))

    def advance(self, watermark: int) -> None:
        self.watermark = max(self.watermark, watermark)
        left, right = self.kept
        left[:] = [r for r in left if r[1] + max(self.upper, 0) > self.watermark]
        right[:] = [r for r in right if r[1] + max(-self.lower, 0) > self.watermark]


@given(steps(), st.integers(-12, 12), st.integers(0, 12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_interval_join_is_that_of_the_model(
    case: list[tuple[Any, ...]], lower: int, width: int, pairwise: bool
) -> None:
    model = IntervalModel(lower, lower + width)
    if pairwise:
        function = spec(lambda left, right: (left, right), FunctionKind.JOIN)
    else:
        function = spec(lambda left, right, context, out: out.collect((left, right)), FunctionKind.PROCESS_JOIN)
    harness = OperatorHarness(IntervalJoinFactory(lower, lower + width, function, ("late", "late")), KEYS)
    for step in case:
        before = len(model.pairs)
        if step[0] == "batch":
            for record in step[2]:
                model.record(step[1], record)
            out = harness.process(step[2], [time for _, time, _ in step[2]], step[1])
        elif step[0] == "watermark":
            model.advance(step[1])
            out = harness.watermark(step[1])
        else:
            harness.restart()
            out = []
        assert [record for record, _ in out] == model.pairs[before:]
        assert all(time == max(left[1], right[1]) for (left, right), time in out)
        assert [record[2] for record, _ in harness.side.get("late", [])] == model.late
    harness.close()


@given(
    steps(),
    st.sampled_from(["tumbling", "sliding", "session"]),
    st.integers(1, 15),
    st.integers(1, 15),
    st.sampled_from([0, 10]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_window_joins_are_those_of_the_model(
    case: list[tuple[Any, ...]], kind: str, size: int, slide: int, lateness: int, grouped: bool
) -> None:
    model = WindowModel(ModelSettings(kind=kind, size=size, slide=slide, lateness=lateness))
    assigner = {
        "tumbling": TumblingEventTimeWindows.of(size),
        "sliding": SlidingEventTimeWindows.of(size, slide),
        "session": EventTimeSessionWindows.with_gap(size),
    }[kind]
    if grouped:
        function = spec(lambda firsts, seconds, out: [(sorted(firsts), sorted(seconds))], FunctionKind.CO_GROUP)
    else:
        function = spec(lambda first, second: (first, second), FunctionKind.JOIN)
    harness = OperatorHarness(WindowJoinFactory(WindowSpec(assigner, lateness=lateness, late="late"), function), KEYS)
    ports: dict[int, tuple[int, Any]] = {}
    for step in case:
        before = len(model.fired)
        if step[0] == "batch":
            for key, time, number in step[2]:
                ports[number] = (step[1], (key, time, number))
                model.record(key, time, number)
            out = harness.process(step[2], [time for _, time, _ in step[2]], step[1])
        elif step[0] == "watermark":
            model.advance(step[1])
            out = harness.watermark(step[1])
        else:
            harness.restart()
            out = []
        expected = [pair for fired in model.fired[before:] for pair in paired(fired, ports, grouped)]
        assert sorted(out) == sorted(expected)
        assert [record[2] for record, _ in harness.side.get("late", [])] == model.late


def test_interval_join_keeps_no_record_that_can_have_no_partner() -> None:
    harness = OperatorHarness(IntervalJoinFactory(0, 10, spec(lambda left, right: 0, FunctionKind.JOIN)), KEYS)
    harness.process([("a", 50, 1)], [50], 0)
    harness.process([("a", 20, 2), ("a", 30, 3)], [20, 30], 0)
    harness.process([("a", 25, 4)], [25], 1)
    assert harness.context.keyed is not None
    left = harness.context.keyed.table("interval-left", "times, records")
    harness.context.keyed.key = "a"
    for watermark, kept in ((29, [20, 30, 50]), (30, [30, 50]), (40, [50]), (60, None)):
        harness.watermark(watermark)
        held = left.get()
        assert (None if held is None else held[0]) == kept


def paired(fired: tuple[str, int, int, tuple[int, ...]], ports: dict[int, tuple[int, Any]], grouped: bool) -> list[Any]:
    """What a join, or a co-group, makes of a window that the model fired."""
    _, _, end, numbers = fired
    firsts = [record for port, record in map(ports.__getitem__, numbers) if port == 0]
    seconds = [record for port, record in map(ports.__getitem__, numbers) if port == 1]
    if grouped:
        return [((sorted(firsts), sorted(seconds)), end - 1)]
    return [((first, second), end - 1) for first in firsts for second in seconds]

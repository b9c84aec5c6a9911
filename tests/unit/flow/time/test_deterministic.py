"""What comes out depends on the records and their order alone: not on batches, restarts, or the machine's clock."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.operator_harness import OperatorHarness, spec

from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import (
    ContinuousEventTimeTrigger,
    CountTrigger,
    EventTimeSessionWindows,
    SlidingEventTimeWindows,
    TumblingEventTimeWindows,
)
from sage.core.graph.spec import FunctionKind
from sage.core.runtime.operators import watermarks
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.operators.watermarks import WatermarkFactory
from sage.core.runtime.operators.window_aggregates import Count, Sum, as_result
from sage.core.runtime.operators.window_contents import ContentsSpec
from sage.core.runtime.operators.window_factory import WindowFactory
from sage.core.runtime.operators.windows import WindowSpec

pytestmark = pytest.mark.spec("K4")

END = 2**63 - 1

COUNT = ContentsSpec("aggregate", spec(Count(), FunctionKind.AGGREGATE))
SUM = ContentsSpec("aggregate", spec(Sum(2), FunctionKind.AGGREGATE))
RESULT = spec(as_result, FunctionKind.WINDOW)
VALUES = spec(lambda key, window, values, out: out.collect((key, window, tuple(values))), FunctionKind.WINDOW)

JOBS: dict[str, Callable[[int], Operator]] = {
    "tumbling count": lambda late: WindowFactory(
        WindowSpec(TumblingEventTimeWindows.of(10), lateness=late, late="late", contents=COUNT, function=RESULT)
    )(),
    "sliding sum": lambda late: WindowFactory(
        WindowSpec(SlidingEventTimeWindows.of(20, 5), lateness=late, late="late", contents=SUM, function=RESULT)
    )(),
    "tumbling values": lambda late: WindowFactory(
        WindowSpec(TumblingEventTimeWindows.of(10), lateness=late, late="late", function=VALUES)
    )(),
    "sliding values": lambda late: WindowFactory(
        WindowSpec(SlidingEventTimeWindows.of(20, 7), lateness=late, late="late", function=VALUES)
    )(),
    "sessions": lambda late: WindowFactory(
        WindowSpec(EventTimeSessionWindows.with_gap(6), lateness=late, late="late", function=VALUES)
    )(),
    "session count": lambda late: WindowFactory(
        WindowSpec(EventTimeSessionWindows.with_gap(6), lateness=late, late="late", contents=COUNT, function=RESULT)
    )(),
    "counted": lambda late: WindowFactory(
        WindowSpec(TumblingEventTimeWindows.of(10), CountTrigger.of(3), None, late, "late", function=VALUES)
    )(),
}


def run(
    job: Callable[[], Operator], records: list[Any], cuts: list[int], restarts: set[int], bound: int
) -> tuple[list[Any], list[Any]]:
    """The records in batches cut at `cuts`, with restarts before some of the batches."""
    strategy = WatermarkStrategy.for_bounded_out_of_orderness(bound).with_timestamp_assigner(lambda record: record[1])
    source = OperatorHarness(WatermarkFactory(strategy))
    windows = OperatorHarness(job, [lambda record: record[0]])
    places = sorted({0, *cuts, len(records)})
    for start, stop in itertools.pairwise(places):
        if start in restarts:
            source.restart()
            windows.restart()
        before = len(source.events)
        source.process(records[start:stop])
        batch: list[Any] = []
        for event in [*source.events[before:], ("watermark", None)]:
            if event[0] != "watermark":
                batch.append(event)
                continue
            if batch:
                windows.process(batch, [time for _, time, _ in batch])
            batch = []
            if event[1] is not None:
                windows.watermark(event[1])
    windows.watermark(END)
    return windows.output, windows.side.get("late", [])


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """Keys and times: at random, or going on with some disorder as real streams do."""
    if draw(st.booleans()):
        return draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 120)), max_size=60))
    time, result = 0, []
    for key, step, back in draw(
        st.lists(st.tuples(st.sampled_from("cbaedf"), st.integers(0, 3), st.integers(0, 12)), min_size=20, max_size=60)
    ):
        time += step
        result.append((key, time - back))
    return result


events = streams()


@given(
    st.sampled_from(sorted(JOBS)),
    events,
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8),
    st.integers(0, 30),
    st.sampled_from([0, 15]),
    st.sampled_from([1, 4, 1000]),
)
@settings(max_examples=250, deadline=None)
def test_batches_and_restarts_change_nothing(
    name: str, pairs: list[Any], places: list[tuple[int, bool]], bound: int, lateness: int, every: int
) -> None:
    if bound == 0 and "session" in name:
        bound = 1  # sessions that just touch: see WatermarkStrategy
    records = [(key, time, number) for number, (key, time) in enumerate(pairs)]
    cuts = [cut for cut, _ in places if cut <= len(records)]
    restarts = {cut for cut, restart in places if restart}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watermarks, "EVERY", every)
        whole = run(lambda: JOBS[name](lateness), records, [], set(), bound)
        parts = run(
            lambda: JOBS[name](lateness),
            records,
            cuts,
            {cuts[number] for number in restarts if number < len(cuts)},
            bound,
        )
        single = run(lambda: JOBS[name](lateness), records, list(range(len(records))), set(), bound)
    assert parts == whole
    assert single == whole


@given(events, st.lists(st.integers(0, 60), max_size=12), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_early_firings_stand_at_the_same_places(pairs: list[Any], cuts: list[int], bound: int) -> None:
    records = [(key, time, number) for number, (key, time) in enumerate(pairs)]
    cuts = [cut for cut in cuts if cut <= len(records)]

    def job() -> Operator:
        trigger = ContinuousEventTimeTrigger.of(5)
        return WindowFactory(WindowSpec(TumblingEventTimeWindows.of(30), trigger, function=VALUES))()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watermarks, "EVERY", 4)
        assert run(job, records, cuts, set(), bound) == run(job, records, [], set(), bound)


@given(st.sampled_from(sorted(JOBS)), events, st.integers(1, 30), st.sampled_from([0, 15]))
@settings(max_examples=60, deadline=None)
def test_rare_watermarks_lose_and_add_nothing(name: str, pairs: list[Any], bound: int, lateness: int) -> None:
    """With a watermark after every record the results are the same, only earlier: records between two watermarks
    cannot tell the difference."""
    records = [(key, time, number) for number, (key, time) in enumerate(pairs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watermarks, "EVERY", 1)
        often = run(lambda: JOBS[name](lateness), records, [], set(), bound)
        patch.setattr(watermarks, "EVERY", 1000)
        rarely = run(lambda: JOBS[name](lateness), records, [], set(), bound)
    assert sorted(often[0]) == sorted(rarely[0])
    assert often[1] == rarely[1]

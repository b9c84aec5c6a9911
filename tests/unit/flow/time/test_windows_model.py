"""Windows against the model: the same records, watermarks and clock, in batches of any size, with restarts."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.operator_harness import OperatorHarness, spec
from tests.helpers.window_model import ModelSettings, WindowModel

from sage.core.api.windows import (
    ContinuousEventTimeTrigger,
    CountEvictor,
    CountTrigger,
    EventTimeSessionWindows,
    Evictor,
    ProcessingTimeSessionWindows,
    PurgingTrigger,
    SlidingEventTimeWindows,
    SlidingProcessingTimeWindows,
    TimeEvictor,
    Trigger,
    TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
    WindowAssigner,
)
from sage.core.graph.spec import FunctionKind, OperatorKind
from sage.core.runtime.operators import window_panes
from sage.core.runtime.operators.window_aggregates import Count, Max, Mean, Min, Sum, as_result
from sage.core.runtime.operators.window_contents import ContentsSpec
from sage.core.runtime.operators.window_factory import WindowFactory
from sage.core.runtime.operators.windows import WindowSpec

pytestmark = pytest.mark.spec("K4")

Step = tuple[Any, ...]  # ("batch", [(key, time, value)]), ("watermark", time), ("clock", time) or ("restart",)


def assigner_of(model: ModelSettings) -> WindowAssigner[Any, Any]:
    if model.kind == "session":
        return EventTimeSessionWindows.with_gap(model.size) if model.event_time else (
            ProcessingTimeSessionWindows.with_gap(model.size)
        )  # fmt: skip
    if model.kind == "tumbling":
        tumbling = TumblingEventTimeWindows if model.event_time else TumblingProcessingTimeWindows
        return tumbling.of(model.size, model.offset)
    sliding = SlidingEventTimeWindows if model.event_time else SlidingProcessingTimeWindows
    return sliding.of(model.size, model.slide, model.offset)


def trigger_of(model: ModelSettings) -> Trigger[Any, Any] | None:
    return {
        "event": None,
        "processing": None,
        "count": CountTrigger.of(model.parameter),
        "purging-count": PurgingTrigger.of(CountTrigger.of(model.parameter)),
        "continuous": ContinuousEventTimeTrigger.of(model.parameter),
    }[model.trigger]


def evictor_of(model: ModelSettings) -> Evictor[Any] | None:
    if model.evict is None:
        return None
    return CountEvictor.of(model.keep) if model.evict == "count" else TimeEvictor.of(model.keep)


def together(key: Any, window: Any, values: Any, out: Any) -> None:
    out.collect((key, window.start, window.end, tuple(values)))


def single(key: Any, window: Any, values: Any, out: Any) -> None:
    out.collect((key, window.start, window.end, values[0]))


class Concatenate:
    """An AggregateFunction: the values in a tuple."""

    def create_accumulator(self) -> tuple[int, ...]:
        return ()

    def add(self, value: Any, accumulator: tuple[int, ...]) -> tuple[int, ...]:
        return (*accumulator, value[2])

    def get_result(self, accumulator: tuple[int, ...]) -> tuple[int, ...]:
        return accumulator

    def merge(self, accumulator: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        return accumulator + other


def second(key: Any, window: Any, values: Any, out: Any) -> None:
    out.collect((key, window.start, window.end, tuple(value[2] for value in values)))


def contents_of(kind: str) -> tuple[ContentsSpec, Any]:
    if kind == "aggregate":
        return ContentsSpec("aggregate", spec(Concatenate, FunctionKind.AGGREGATE)), single
    if kind == "reduce":
        folded = spec(lambda a, b: (a[0], b[1], (*as_tuple(a[2]), *as_tuple(b[2]))), OperatorKind.REDUCE)
        return ContentsSpec("reduce", folded), reduced
    return ContentsSpec(), second


def as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def reduced(key: Any, window: Any, values: Any, out: Any) -> None:
    out.collect((key, window.start, window.end, as_tuple(values[0][2])))


@dataclass(frozen=True)
class Case:
    model: ModelSettings
    contents: str
    steps: list[Step]


TRIGGERS = ["event", "event", "event", "count", "purging-count", "continuous"]


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    result: list[Step] = []
    watermark, clock, number = -30, 0, 0
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["batch", "batch", "watermark", "clock", "restart"]))
        if kind == "batch":
            records = []
            for key, time in draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-20, 60)), max_size=8)):
                number += 1
                records.append((key, time, number))
            result.append(("batch", records))
        elif kind == "watermark":
            watermark += draw(st.integers(1, 30))  # the same once more tells nothing and is not sent
            result.append(("watermark", watermark))
        elif kind == "clock":
            clock += draw(st.integers(0, 30))
            result.append(("clock", clock))
        else:
            result.append(("restart",))
    result.append(("watermark", watermark + 200))
    result.append(("clock", clock + 200))
    return result


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["tumbling", "sliding", "session"]))
    event_time = draw(st.sampled_from([True, True, False]))
    size = draw(st.integers(1, 20))
    slide = draw(st.integers(1, 20)) if kind == "sliding" else size
    trigger = draw(st.sampled_from(TRIGGERS)) if event_time else "processing"
    model = ModelSettings(
        kind=kind,
        size=size,
        slide=slide,
        offset=0 if kind == "session" else draw(st.integers(-slide + 1, slide - 1)),
        lateness=draw(st.sampled_from([0, 0, 5, 20])) if event_time else 0,
        event_time=event_time,
        trigger=trigger,
        parameter=draw(st.integers(1, 6)),
        evict=draw(st.sampled_from([None, None, "count", "time"])),
        keep=draw(st.integers(1, 6)),
    )
    return Case(model, draw(st.sampled_from(["elements", "reduce", "aggregate"])), draw(steps()))


def run(case: Case, window: WindowSpec, state: str = "memory") -> None:
    """The same steps through both; after each, what has come out must be the same."""
    model = WindowModel(case.model)
    harness = OperatorHarness(WindowFactory(window), [lambda record: record[0]], state=state)
    fired, late = 0, 0
    for step in case.steps:
        if step[0] == "batch":
            for key, time, value in step[1]:
                model.record(key, time, value)
            out = harness.process(step[1], [time for _, time, _ in step[1]])
        elif step[0] == "watermark":
            model.advance(step[1])
            out = harness.watermark(step[1])
        elif step[0] == "clock":
            model.clock(step[1])
            out = harness.time(step[1])
        else:
            harness.restart()
            out = []
        assert ordered(case, [record for record, _ in out]) == ordered(case, expected(case, model.fired[fired:]))
        assert all(time == record[2] - 1 for record, time in out if len(record) == 4)
        assert [record[2] for record, _ in harness.side.get("late", [])][late:] == model.late[late:]
        fired, late = len(model.fired), len(model.late)
    harness.close()


def expected(case: Case, fired: list[tuple[str, int, int, tuple[int, ...]]]) -> list[Any]:
    folds: dict[str, Any] = {"count": len, "sum": sum, "min": min, "max": max, "mean": lambda v: sum(v) / len(v)}
    fold = folds.get(case.contents)
    return fired if fold is None else [(key, (start, end), fold(values)) for key, start, end, values in fired]


def ordered(case: Case, results: list[Any]) -> list[Any]:
    """Timers of one step fire in the order of their windows; merged windows keep their values in any order."""
    if case.model.kind == "session" and case.contents in ("elements", "reduce", "aggregate"):
        results = [(key, start, end, tuple(sorted(values))) for key, start, end, values in results]
    return sorted(results)


@given(cases())
@settings(max_examples=150, deadline=None)
def test_windows_are_those_of_the_model(case: Case) -> None:
    if case.model.kind == "session" and case.model.evict is not None:
        case = replace(case, model=replace(case.model, evict=None))  # which records a merge keeps is not defined
    run(case, window_of(case))


@given(cases())
@settings(max_examples=15, deadline=None)
def test_windows_on_disk_are_those_of_the_model(case: Case) -> None:
    case = replace(case, model=replace(case.model, evict=None))
    run(case, window_of(case), "rocksdb")


def window_of(case: Case) -> WindowSpec:
    contents, function = contents_of(case.contents)
    return WindowSpec(
        assigner_of(case.model),
        trigger_of(case.model),
        evictor_of(case.model),
        case.model.lateness,
        "late",
        contents,
        spec(function, FunctionKind.WINDOW),
    )


BUILTIN = {"count": Count(), "sum": Sum(2), "min": Min(2), "max": Max(2), "mean": Mean(2)}


@given(cases(), st.sampled_from(sorted(BUILTIN)), st.booleans())
@settings(max_examples=100, deadline=None)
def test_built_in_aggregates_are_those_of_the_model(case: Case, aggregate: str, crowded: bool) -> None:
    model = replace(case.model, evict=None, trigger="event" if case.model.event_time else "processing")
    with pytest.MonkeyPatch.context() as patch:
        if crowded:
            patch.setattr(window_panes, "DIRTY", 2)
            patch.setattr(window_panes, "CACHED", 4)
        run(Case(model, aggregate, case.steps), built_in(model, aggregate))


@given(cases())
@settings(max_examples=10, deadline=None)
def test_built_in_aggregates_on_disk_are_those_of_the_model(case: Case) -> None:
    model = replace(case.model, evict=None, trigger="event" if case.model.event_time else "processing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_panes, "DIRTY", 2)
        patch.setattr(window_panes, "CACHED", 4)
        run(Case(model, "sum", case.steps), built_in(model, "sum"), "rocksdb")


def built_in(model: ModelSettings, aggregate: str) -> WindowSpec:
    contents = ContentsSpec("aggregate", spec(BUILTIN[aggregate], FunctionKind.AGGREGATE))
    function = spec(as_result, FunctionKind.WINDOW)
    return WindowSpec(assigner_of(model), None, None, model.lateness, "late", contents, function)

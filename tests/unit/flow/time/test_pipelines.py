"""Windows, joins and watermarks in whole pipelines: several subtasks, idle streams, side outputs, wrong pipelines."""

import collections
import itertools
import random
import threading
from typing import Any

import pytest

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment, OutputTag, StopSignal
from sage.core.api.function import AggregateFunction, ProcessWindowFunction, WindowFunction
from sage.core.api.state import ValueStateDescriptor
from sage.core.api.time import WatermarkStrategy
from sage.core.api.windows import (
    CountEvictor,
    CountTrigger,
    DeltaTrigger,
    EventTimeSessionWindows,
    GlobalWindows,
    PurgingTrigger,
    SlidingEventTimeWindows,
    TimeWindow,
    TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
)

pytestmark = pytest.mark.spec("K4")

TIMES: WatermarkStrategy[Any] = WatermarkStrategy.for_bounded_out_of_orderness(50).with_timestamp_assigner(
    lambda event: event[1]
)


def events(count: int = 4000, seed: int = 1) -> list[tuple[str, int, int]]:
    rng = random.Random(seed)
    return [(rng.choice("abcdefghij"), n // 4 + rng.randrange(-20, 20) + 100, n) for n in range(count)]


def counted(records: list[Any], size: int) -> dict[tuple[str, int], int]:
    return collections.Counter((key, time // size * size) for key, time, _ in records)


@pytest.mark.parametrize("parallelism", [1, 4])
def test_no_event_is_lost_whatever_the_parallelism(parallelism: int) -> None:
    env = LocalEnvironment("test")
    out: list[Any] = []
    records = events()
    stream = env.from_collection(records).assign_timestamps_and_watermarks(TIMES).key_by(lambda event: event[0])
    stream.window(TumblingEventTimeWindows.of(100)).count(parallelism=parallelism).sink(out.append, parallelism=1)
    env.submit()
    assert {(key, window.start): number for key, window, number in out} == counted(records, 100)


def test_a_replay_is_identical() -> None:
    def run() -> list[Any]:
        env = LocalEnvironment("test")
        out: list[Any] = []
        tight = WatermarkStrategy.for_bounded_out_of_orderness(10).with_timestamp_assigner(lambda event: event[1])
        late: OutputTag[Any] = OutputTag("late")
        stream = env.from_collection(events()).assign_timestamps_and_watermarks(tight).key_by(lambda event: event[0])
        result = stream.window(TumblingEventTimeWindows.of(25)).side_output_late_data(late).sum(2)
        result.sink(out.append)
        result.get_side_output(late).map(lambda event: ("late", event)).sink(out.append)
        env.submit()
        return [entry for entry in out if entry[0] == "late"] + [entry for entry in out if entry[0] != "late"]

    first = run()
    assert any(entry[0] == "late" for entry in first)
    assert run() == first


def test_an_idle_stream_holds_nothing_back() -> None:
    """Both sources end only once a window has fired; one of them gives no record."""
    env, fired, numbers = LocalEnvironment("test"), threading.Event(), itertools.count()

    def silent() -> Any:
        raise StopSignal if fired.wait(60) else TimeoutError("no window has fired")

    def busy() -> Any:
        if fired.is_set():
            raise StopSignal
        return ("a", next(numbers), 0)

    strategy = TIMES.with_idleness(50)
    silence = env.from_source(silent).assign_timestamps_and_watermarks(strategy)
    records = env.from_source(busy).assign_timestamps_and_watermarks(strategy)
    keyed = records.union(silence).key_by(lambda event: event[0])
    keyed.window(TumblingEventTimeWindows.of(50)).count().sink(lambda result: fired.set())
    env.submit()


class Running(ProcessWindowFunction[str, Any, Any, TimeWindow]):
    """With state of the key over all windows, state of the window, and a side output."""

    tag: OutputTag[str] = OutputTag("big")

    def process(self, key: str, context: Any, values: Any, out: Any) -> None:
        total = context.global_state(ValueStateDescriptor("total", 0))
        firings = context.window_state(ValueStateDescriptor("firings", 0))
        total.update(total.value() + len(values))
        firings.update(firings.value() + 1)
        out.collect((key, context.window.start, len(values), total.value(), firings.value()))
        if len(values) > 2:
            context.output(self.tag, f"{key} {context.window.start}")

    def clear(self, context: Any) -> None:
        context.window_state(ValueStateDescriptor("firings", 0)).clear()


def test_a_process_window_function_has_state_of_its_key_and_its_window() -> None:
    env = LocalEnvironment("test")
    out: list[Any] = []
    big: list[Any] = []
    times = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda event: event[1])
    records = [("a", 1), ("a", 2), ("b", 3), ("a", 11), ("a", 4), ("a", 40)]
    stream = env.from_collection(records).assign_timestamps_and_watermarks(times).key_by(lambda event: event[0])
    result = stream.window(TumblingEventTimeWindows.of(10)).allowed_lateness(20).process(Running)
    result.sink(out.append)
    result.get_side_output(Running.tag).sink(big.append)
    env.submit()
    assert out == [("a", 0, 2, 2, 1), ("b", 0, 1, 1, 1), ("a", 0, 3, 5, 2), ("a", 10, 1, 6, 1), ("a", 40, 1, 7, 1)]
    assert big == ["a 0"]


class Mean(AggregateFunction[Any, Any, float]):
    def create_accumulator(self) -> Any:
        return (0, 0)

    def add(self, value: Any, accumulator: Any) -> Any:
        return (accumulator[0] + value[2], accumulator[1] + 1)

    def get_result(self, accumulator: Any) -> float:
        return float(accumulator[0] / accumulator[1])

    def merge(self, accumulator: Any, other: Any) -> Any:
        return (accumulator[0] + other[0], accumulator[1] + other[1])


class Named(WindowFunction[str, float, Any, TimeWindow]):
    def apply(self, key: str, window: TimeWindow, values: Any, out: Any) -> None:
        out.collect((key, window.start, *values))


def test_an_aggregate_with_a_window_function_is_the_built_in_one() -> None:
    results: list[list[Any]] = []
    for way in ("own", "built in"):
        env = LocalEnvironment("test")
        out: list[Any] = []
        stream = env.from_collection(events()).assign_timestamps_and_watermarks(TIMES).key_by(lambda event: event[0])
        windows = stream.window(SlidingEventTimeWindows.of(100, 50))
        if way == "own":
            windows.aggregate(Mean, Named).sink(out.append)
        else:
            windows.mean(2).map(lambda result: (result.key, result.window.start, result.value)).sink(out.append)
        env.submit()
        results.append(out)
    assert results[0] == results[1]
    assert len(results[0]) > 100


def test_windows_by_the_clock_and_by_count() -> None:
    env = LocalEnvironment("test")
    out: list[Any] = []
    pairs: list[Any] = []
    deltas: list[Any] = []
    keyed = env.from_collection(range(100)).key_by(lambda n: n % 3)
    keyed.window(TumblingProcessingTimeWindows.of("20ms")).trigger(PurgingTrigger.of(CountTrigger.of(10))).count().map(
        lambda result: result.value
    ).sink(out.append)
    keyed.count_window(4, slide=2).apply(lambda key, window, values, out: [tuple(values)]).sink(pairs.append)
    keyed.window(GlobalWindows.create()).trigger(DeltaTrigger.of(30, lambda old, new: new - old)).evictor(
        CountEvictor.of(1)
    ).reduce(max).sink(deltas.append)
    env.submit()
    assert set(out) <= {10}
    assert pairs[:4] == [(0, 3), (1, 4), (2, 5), (0, 3, 6, 9)]
    assert deltas == [33, 34, 35, 66, 67, 68, 99]


def test_joins_in_a_pipeline() -> None:
    env = LocalEnvironment("test")
    joined: list[Any] = []
    grouped: list[Any] = []
    near: list[Any] = []
    left, right = events(600, seed=2), events(600, seed=3)
    first = env.from_collection(left).assign_timestamps_and_watermarks(TIMES)
    second = env.from_collection(right).assign_timestamps_and_watermarks(TIMES)
    windows = TumblingEventTimeWindows.of(20)
    first.join(second).where(lambda e: e[0]).equal_to(lambda e: e[0]).window(windows).apply(
        lambda a, b: (a[2], b[2]), parallelism=2
    ).sink(joined.append, parallelism=1)
    first.co_group(second).where(lambda e: e[0]).equal_to(lambda e: e[0]).window(windows).apply(
        lambda a, b, out: [(len(a), len(b))]
    ).sink(grouped.append, parallelism=1)
    first.key_by(lambda e: e[0]).interval_join(second.key_by(lambda e: e[0])).between(-2, 3).apply(
        lambda a, b: (a[2], b[2]), parallelism=2
    ).sink(near.append, parallelism=1)
    env.submit()
    pairs = [(a, b) for a in left for b in right if a[0] == b[0]]
    assert sorted(joined) == sorted((a[2], b[2]) for a, b in pairs if a[1] // 20 == b[1] // 20)
    assert sorted(near) == sorted((a[2], b[2]) for a, b in pairs if -2 <= b[1] - a[1] <= 3)
    assert sum(a for a, _ in grouped) == len(left)
    assert sum(b for _, b in grouped) == len(right)


def test_sessions_and_all_windows() -> None:
    env = LocalEnvironment("test")
    sessions: list[Any] = []
    everything: list[Any] = []
    records = [("a", time, 0) for time in (1, 5, 30, 33, 9, 100)]
    stream = env.from_collection(records).assign_timestamps_and_watermarks(TIMES)
    stream.key_by(lambda event: event[0]).window(
        EventTimeSessionWindows.with_dynamic_gap(lambda event: 10)
    ).count().sink(sessions.append)
    stream.window_all(TumblingEventTimeWindows.of(50)).max(1).sink(everything.append)
    env.submit()
    assert [(result.window, result.value) for result in sessions] == [((1, 19), 3), ((30, 43), 2), ((100, 110), 1)]
    assert [(result.key, result.value) for result in everything] == [(None, 33), (None, 100)]


def keyed_stream() -> Any:
    return LocalEnvironment("test").from_collection([("a", 1)]).key_by(lambda event: event[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.window("10s"), "window assigner"),
        (lambda s: s.window(TumblingEventTimeWindows.of(0)), "at least 1 ms"),
        (lambda s: s.window(TumblingEventTimeWindows.of("1s", "2s")), "offset"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).trigger(CountTrigger), "needs a Trigger"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).evictor(5), "needs an Evictor"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).allowed_lateness("-1s"), "lateness"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).side_output_late_data("late"), "OutputTag"),
        (lambda s: s.window(EventTimeSessionWindows.with_gap(5)).trigger(DeltaTrigger.of(1, max)), "does not work"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).apply(lambda key, window: None), "does not take 4"),
        (lambda s: s.window(TumblingEventTimeWindows.of(5)).aggregate(len), "aggregate"),
        (lambda s: s.count_window(0), "at least 1"),
        (lambda s: s.window_all(TumblingEventTimeWindows.of(5)).count(parallelism=2), "parallel"),
        (lambda s: s.interval_join(s).apply(max), "needs an interval"),
        (lambda s: s.interval_join(s).between(5, 1), "is empty"),
        (lambda s: s.interval_join(LocalEnvironment("x").from_collection([1])), "different environments"),
        (lambda s: s.join(s).window(TumblingEventTimeWindows.of(5)), "needs a key"),
        (lambda s: s.join(s).where(len).equal_to(len).window(5), "window assigner"),
        (lambda s: s.assign_timestamps_and_watermarks(5), "WatermarkStrategy"),
    ],
)
def test_wrong_pipelines_are_refused_when_they_are_built(build: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        build(keyed_stream())


def test_an_accumulator_that_cannot_merge_is_refused_for_sessions() -> None:
    class Unmerged(AggregateFunction[Any, int, int]):
        def create_accumulator(self) -> int:
            return 0

        def add(self, value: Any, accumulator: int) -> int:
            return accumulator + 1

        def get_result(self, accumulator: int) -> int:
            return accumulator

    with pytest.raises(PipelineError, match=r"merge\(\)"):
        keyed_stream().window(EventTimeSessionWindows.with_gap(5)).aggregate(Unmerged)


def test_windows_of_event_time_need_times() -> None:
    env = LocalEnvironment("test")
    env.from_collection([1]).key_by(lambda x: x).window(TumblingEventTimeWindows.of(5)).count().print()
    with pytest.raises(PipelineError, match="no event time"):
        env.submit()


def test_a_function_that_raises_is_told_with_the_record() -> None:
    env = LocalEnvironment("test")
    stream = env.from_collection([("a", 1), ("b", None)]).assign_timestamps_and_watermarks(
        WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda event: event[1] + 0)
    )
    stream.print()
    with pytest.raises(PipelineError, match=r"\('b', None\)"):
        env.submit()

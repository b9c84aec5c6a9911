"""Records that come too late are counted for each operator, and the summary of a run says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage.cli.commands.run import _summary
from sage.core.api import (
    DataStream,
    EventTimeSessionWindows,
    LocalEnvironment,
    OutputTag,
    SlidingEventTimeWindows,
    TumblingEventTimeWindows,
    WatermarkStrategy,
)
from sage.core.runner import JobReport

pytestmark = pytest.mark.spec("K11")

TIMES = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda time: time)
LATE: OutputTag[int] = OutputTag("late")


def tumbling(times: DataStream[int]) -> DataStream[Any]:
    return times.key_by(lambda time: 0).window(TumblingEventTimeWindows.of(10)).count(name="windows")


def sliding(times: DataStream[int]) -> DataStream[Any]:
    windows = times.key_by(lambda time: 0).window(SlidingEventTimeWindows.of(10, 5))
    return windows.reduce(lambda a, b: a + b, name="windows")


def sessions(times: DataStream[int]) -> DataStream[Any]:
    return times.key_by(lambda time: 0).window(EventTimeSessionWindows.with_gap(5)).count(name="windows")


def put_to_the_side(times: DataStream[int]) -> DataStream[Any]:
    windows = times.key_by(lambda time: 0).window(TumblingEventTimeWindows.of(10)).side_output_late_data(LATE)
    return windows.count(name="windows")


def interval_join(times: DataStream[int]) -> DataStream[Any]:
    keyed = times.key_by(lambda time: 0)
    return keyed.interval_join(keyed).between(-1, 1).apply(lambda a, b: a + b, name="windows")


@pytest.mark.parametrize(
    ("build", "late"), [(tumbling, 2), (sliding, 2), (sessions, 2), (put_to_the_side, 2), (interval_join, 4)]
)
def test_late_records_are_counted(build: Callable[[DataStream[int]], DataStream[Any]], late: int) -> None:
    env = LocalEnvironment("late")
    build(env.from_collection([1, 2, 100, 3, 101, 4]).assign_timestamps_and_watermarks(TIMES)).sink(lambda result: None)
    metrics = env.submit().metrics()
    assert {row.operator: row.late for row in metrics.operators if row.late} == {"windows": late}
    report = JobReport("1", "late", "finished", 6, 3, 0.0, metrics.operators)
    assert f"6 in, 3 out, {late} late" in _summary(report)


def test_nothing_is_said_where_nothing_is_late() -> None:
    env = LocalEnvironment("in-time")
    tumbling(env.from_collection([1, 2, 100]).assign_timestamps_and_watermarks(TIMES)).sink(lambda result: None)
    metrics = env.submit().metrics()
    assert "late" not in _summary(JobReport("1", "job", "finished", 3, 2, 0.0, metrics.operators))

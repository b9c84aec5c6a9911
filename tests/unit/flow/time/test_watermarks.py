"""Watermarks: where they stand among the records, idleness, alignment, generators, restores."""

from typing import Any

import pytest
from tests.helpers.operator_harness import ManualClock, OperatorHarness

from sage.common.errors import PipelineError
from sage.core.api.time import TimestampAssigner, WatermarkGenerator, WatermarkStrategy
from sage.core.runtime.operators.watermarks import EVERY, INTERVAL, WatermarkFactory

pytestmark = pytest.mark.spec("K4")

END = 2**63 - 1


def harness(strategy: WatermarkStrategy[Any], **options: Any) -> OperatorHarness:
    return OperatorHarness(WatermarkFactory(strategy), **options)


def bounded(bound: int) -> WatermarkStrategy[Any]:
    return WatermarkStrategy.for_bounded_out_of_orderness(bound).with_timestamp_assigner(lambda record: record)


def marks(events: list[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, tuple)]


def test_a_watermark_stands_after_every_so_many_records_whatever_the_batches() -> None:
    records = list(range(3 * EVERY))
    whole, parts = harness(bounded(5)), harness(bounded(5))
    whole.process(records)
    for start in range(0, len(records), 100):
        parts.process(records[start : start + 100])
    assert whole.events == parts.events
    assert marks(whole.events) == [("watermark", n * EVERY - 1 - 6) for n in (1, 2, 3)]
    assert whole.events.index(("watermark", EVERY - 7)) == EVERY


def test_a_record_that_is_too_late_sees_the_watermark() -> None:
    source = harness(bounded(5))
    source.process([10, 20, 16, 14, 13, 30, 1])
    assert source.events == [10, 20, 16, ("watermark", 14), 14, 13, 30, ("watermark", 24), 1]


def test_a_stream_that_becomes_idle_first_says_how_far_it_is() -> None:
    """A watermark of the clock would come after that, when nobody listens."""
    source = harness(bounded(0).with_idleness(INTERVAL // 2))
    source.process([10])
    source.time(INTERVAL // 2)
    assert marks(source.events) == [("watermark", 9), ("idle", True)]


def test_records_keep_their_times() -> None:
    source = harness(WatermarkStrategy.for_monotonous_timestamps())
    assert source.process(["a", "b"], [3, 4]) == [("a", 3), ("b", 4)]


def test_a_slow_stream_gets_its_watermark_by_the_clock() -> None:
    source = harness(bounded(0))
    source.process([10])
    assert marks(source.events) == []
    source.time(INTERVAL - 1)
    assert marks(source.events) == []
    source.time(INTERVAL)
    assert marks(source.events) == [("watermark", 9)]
    source.time(10 * INTERVAL)
    assert marks(source.events) == [("watermark", 9)]


def test_a_quick_stream_gets_none_by_the_clock() -> None:
    source = harness(bounded(0))
    source.process(list(range(10)))
    source.process(list(range(10, EVERY + 10)))
    source.time(INTERVAL)
    assert marks(source.events) == [("watermark", EVERY - 2)]


def test_without_watermarks_event_time_stands_still_until_the_end() -> None:
    source = harness(WatermarkStrategy.no_watermarks().with_timestamp_assigner(lambda record: record))
    source.process(list(range(2 * EVERY)))
    source.time(10 * INTERVAL)
    assert marks(source.events) == []
    source.watermark(100)
    source.watermark(END)
    assert source.forwarded == [None, END]


def test_the_last_watermark_comes_before_the_end() -> None:
    source = harness(bounded(5))
    source.process([10, 20])
    source.watermark(END)
    assert source.events == [10, 20, ("watermark", 14)]
    assert source.forwarded == [END]


def test_watermarks_from_before_end_here() -> None:
    source = harness(bounded(5))
    source.watermark(1000)
    assert source.forwarded == [None]
    assert source.operator.on_status(True) is None


def test_a_silent_stream_is_idle_and_wakes_with_its_next_record() -> None:
    source = harness(bounded(0).with_idleness("1s"))
    source.time(999)
    assert marks(source.events) == []
    source.time(1000)
    assert marks(source.events) == [("idle", True)]
    source.process([5])
    source.time(1900)
    source.process([6])
    assert source.events == [("idle", True), ("idle", False), 5, ("watermark", 4), 6]
    source.time(2899)
    assert ("idle", True) not in source.events[1:]
    source.time(2900)
    assert source.events[-1] == ("idle", True)


def test_a_restored_stream_knows_how_far_it_was() -> None:
    source = harness(bounded(5))
    source.process([100])
    source.restart()
    source.events.clear()
    source.process([50])
    assert source.events == [("watermark", 94), 50]


def test_restored_with_another_parallelism_it_is_as_far_as_the_slowest() -> None:
    fast, slow = harness(bounded(0), parallelism=2), harness(bounded(0), subtask=1, parallelism=2)
    fast.process([100])
    slow.process([40])
    both = fast.snapshot() + slow.snapshot()
    one = harness(bounded(0), restored=both)
    one.process([30])
    assert one.events == [("watermark", 39), 30]
    again = harness(bounded(0), subtask=1, parallelism=2, restored=both)
    again.process([39])
    assert again.events == [("watermark", 39), 39]


class Punctuated(WatermarkGenerator[Any]):
    """A watermark for each even record; the clock gives 1000."""

    def on_event(self, event: Any, event_timestamp: int, output: Any) -> None:
        if event % 2 == 0:
            output.emit_watermark(event_timestamp)

    def on_periodic_emit(self, output: Any) -> None:
        output.emit_watermark(1000)
        output.mark_idle()


class Doubled(TimestampAssigner[int]):
    def extract_timestamp(self, value: int, record_timestamp: int | None) -> int:
        return 2 * value + (record_timestamp or 0)


def test_a_generator_of_ones_own() -> None:
    source = harness(WatermarkStrategy.for_generator(Punctuated).with_timestamp_assigner(Doubled()))
    source.process([1, 2, 3, 1, 4])
    assert source.events == [1, 2, ("watermark", 4), 3, 1, 4, ("watermark", 8)]
    assert [time for _, time in source.output] == [2, 4, 6, 2, 8]
    source.time(INTERVAL)
    assert source.events[-2:] == [("watermark", 1000), ("idle", True)]
    source.process([600], [7])
    assert source.events[-3:] == [600, ("idle", False), ("watermark", 1207)]


def test_streams_of_a_group_wait_for_the_slowest() -> None:
    clock = ManualClock()
    strategy = bounded(0).with_watermark_alignment("group", 20, "1s").with_idleness("1m")
    first, second = harness(strategy, clock=clock, job="a"), harness(strategy, clock=clock, job="a")
    other = harness(strategy, clock=clock, job="another")
    waited: list[bool] = []
    for one in (first, second, other):
        one.context.wait = lambda ready: waited.append(ready())
    second.process([0, 50])
    second.time(INTERVAL)
    first.process([0, 60])
    first.time(clock.now + INTERVAL)
    assert waited == []
    first.process([100])
    first.time(clock.now + INTERVAL)
    assert waited == []  # its watermark was not out yet
    first.process([101])
    assert waited == [False]
    other.process([1000, 0])
    other.process([1001])
    assert waited == [False]
    second.watermark(END)
    first.process([102])
    assert waited == [False]


def test_alignment_lets_a_batch_through_now_and_then() -> None:
    clock = ManualClock()
    strategy = bounded(0).with_watermark_alignment("g", 0, "1s")
    fast, _slow = harness(strategy, clock=clock, job="b"), harness(strategy, clock=clock, job="b")
    ready: list[Any] = []
    fast.context.wait = ready.append
    fast.process([100, 0])
    assert not ready[0]()
    clock.now = 1000
    assert ready[0]()


@pytest.mark.parametrize("wrong", [1.5, None, "noon", True])
def test_a_time_that_is_none_is_told(wrong: object) -> None:
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda record: wrong)  # type: ignore[arg-type, return-value]
    with pytest.raises(PipelineError, match="whole milliseconds"):
        harness(strategy).process(["record"])


def test_a_time_after_the_end_of_all_is_told() -> None:
    """No window could end behind it, so its record would vanish."""
    source = harness(bounded(0))
    source.process([2**70])
    with pytest.raises(PipelineError, match="too late by far"):
        source.time(INTERVAL)


def test_records_without_times_are_told() -> None:
    with pytest.raises(PipelineError, match="no event time"):
        harness(WatermarkStrategy.for_monotonous_timestamps()).process([1])


@pytest.mark.parametrize(
    "build",
    [
        lambda: WatermarkStrategy.for_bounded_out_of_orderness("soon"),
        lambda: WatermarkStrategy.for_bounded_out_of_orderness(-1),
        lambda: WatermarkStrategy.for_generator(Punctuated()),  # type: ignore[arg-type]
        lambda: WatermarkStrategy.no_watermarks().with_timestamp_assigner(5),  # type: ignore[arg-type]
        lambda: WatermarkStrategy.no_watermarks().with_idleness(0),
        lambda: WatermarkStrategy.no_watermarks().with_watermark_alignment("g", "-1s"),
    ],
)
def test_wrong_strategies_are_refused(build: Any) -> None:
    with pytest.raises(PipelineError):
        build()

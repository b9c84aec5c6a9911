"""Process functions: contexts, timers, keyed state, side outputs, times of what they put out (SPEC K2, K3, K5)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.common.errors import PipelineError
from sage.core.api import DataStream, LocalEnvironment, OutputTag
from sage.core.api.function import (
    AggregateFunction,
    Collector,
    FunctionContext,
    KeyedProcessContext,
    KeyedProcessFunction,
    MapFunction,
    OnTimerContext,
    ProcessContext,
    ProcessFunction,
)
from sage.core.api.state import (
    ListStateDescriptor,
    MapStateDescriptor,
    ReducingStateDescriptor,
    ValueStateDescriptor,
)
from sage.core.api.time import WatermarkGenerator, WatermarkOutput, WatermarkStrategy

Pair = tuple[str, int]
LATE: OutputTag[Pair] = OutputTag("late")


def collected(stream: DataStream[Any]) -> list[Any]:
    out: list[Any] = []
    stream.sink(out.append, parallelism=1)
    stream.env.submit()
    return out


def env(**config: Any) -> LocalEnvironment:
    return LocalEnvironment("process", config)


class AfterEach(WatermarkGenerator[Pair]):
    """Event time is at each record's at once."""

    def on_event(self, event: Pair, event_timestamp: int, output: WatermarkOutput) -> None:
        output.emit_watermark(event_timestamp)

    def on_periodic_emit(self, output: WatermarkOutput) -> None:
        """Nothing more."""


def timed(stream: DataStream[Pair]) -> DataStream[Pair]:
    """Pairs (key, time), with that time."""
    strategy: WatermarkStrategy[Pair] = WatermarkStrategy.for_generator(AfterEach)
    return stream.assign_timestamps_and_watermarks(strategy.with_timestamp_assigner(lambda pair: pair[1]))


def key(pair: Pair) -> str:
    return pair[0]


def seen_time(value: Any, context: ProcessContext, out: Collector[Any]) -> None:
    out.collect((value, context.timestamp()))


@pytest.mark.spec("K3")
class TestContexts:
    def test_a_record_has_its_time_and_what_comes_out_has_it_too(self) -> None:
        def twice(value: Pair, context: ProcessContext, out: Collector[int]) -> None:
            out.extend([value[1], value[1]])

        stream = timed(env().from_collection([("a", 5), ("a", 7)]))
        assert collected(stream.process(twice).process(seen_time)) == [(5, 5), (5, 5), (7, 7), (7, 7)]

    def test_without_event_time_there_is_none(self) -> None:
        assert collected(env().from_collection([1]).process(seen_time)) == [(1, None)]

    def test_streams_with_and_without_time_may_meet(self) -> None:
        start = env()
        mixed = timed(start.from_collection([("a", 5)])).union(start.from_collection([("b", 1)]))
        found = sorted(collected(mixed.process(seen_time).process(lambda pair, context, out: out.collect(pair))))
        assert found[0] == (("a", 5), 5)
        assert found[1][0] == ("b", 1)

    def test_the_watermark_and_the_clock(self) -> None:
        def now(value: Pair, context: ProcessContext, out: Collector[Any]) -> None:
            service = context.timer_service()
            out.collect((service.current_watermark(), service.current_processing_time() > 1_600_000_000_000))

        first = collected(timed(env().from_collection([("a", 5)])).process(now))
        assert first == [(-(2**63), True)]

    def test_the_function_context_of_a_class(self) -> None:
        class Where(ProcessFunction[int, str]):
            def open(self, context: FunctionContext) -> None:
                self.name = f"{context.operator}-{context.subtask_index}/{context.parallelism}"

            def process_element(self, value: int, context: ProcessContext, out: Collector[str]) -> None:
                out.collect(self.name + context.function.job_name)

        assert collected(env().from_collection([1]).process(Where, name="where")) == ["where-0/1process"]

    def test_a_collector_cannot_be_used_before_the_first_record(self) -> None:
        class Early(ProcessFunction[int, int]):
            def process_element(self, value: int, context: ProcessContext, out: Collector[int]) -> None:
                self.call_service  # noqa: B018 - has a context
                out.collect(value)

        assert collected(env().from_collection([1, 2]).process(Early())) == [1, 2]


@pytest.mark.spec("K2")
class TestSideOutputs:
    def test_each_has_the_records_of_its_tag_with_their_times(self) -> None:
        def part(value: Pair, context: ProcessContext, out: Collector[Pair]) -> None:
            if value[0] == "late":
                context.output(LATE, value)
            else:
                out.collect(value)

        main: list[Any] = []
        parted = timed(env().from_collection([("a", 1), ("late", 0), ("b", 2)])).process(part)
        parted.process(seen_time).sink(main.append)
        side = collected(parted.get_side_output(LATE).process(seen_time))
        assert main == [(("a", 1), 1), (("b", 2), 2)]
        assert side == [(("late", 0), 0)]

    def test_it_can_be_keyed_and_run_in_parallel(self) -> None:
        def odd(value: int, context: ProcessContext, out: Collector[int]) -> None:
            context.output(OutputTag("odd"), value)

        stream = env().from_collection(range(20)).process(odd).get_side_output(OutputTag[int]("odd"))
        keyed = stream.key_by(lambda x: x % 2)
        assert sorted(collected(keyed.reduce(lambda a, b: a + b, parallelism=2)))[-2:] == [90, 100]

    def test_a_tag_that_nobody_reads_is_dropped(self) -> None:
        def odd(value: int, context: ProcessContext, out: Collector[int]) -> None:
            context.output(OutputTag("nobody"), value)
            out.collect(value)

        assert collected(env().from_collection([1]).process(odd)) == [1]

    def test_operators_without_them_say_so_at_the_line(self) -> None:
        with pytest.raises(PipelineError, match=r"'map' has no side outputs \(.*test_process_functions.py:"):
            env().from_collection([1]).map(abs).get_side_output(LATE)

    @pytest.mark.parametrize("tag", ["late", None, 3])
    def test_a_tag_is_an_output_tag(self, tag: Any) -> None:
        with pytest.raises(PipelineError, match="named by an OutputTag"):
            env().from_collection([1]).process(seen_time).get_side_output(tag)


class Counting(KeyedProcessFunction[str, Pair, Any]):
    """Counts; tells the count when the key has had no record for 10 ms of event time."""

    def open(self, context: FunctionContext) -> None:
        self.count = context.get_state(ValueStateDescriptor("count", 0))
        self.last = context.get_state(ValueStateDescriptor("last", 0))

    def process_element(self, value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
        timers = context.timer_service()
        timers.delete_event_time_timer(self.last.value() + 10)
        self.count.update(self.count.value() + 1)
        self.last.update(value[1])
        timers.register_event_time_timer(value[1] + 10)
        timers.register_event_time_timer(value[1] + 10)

    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Any]) -> None:
        out.collect((context.get_current_key(), self.count.value(), timestamp, context.time_domain()))
        self.count.clear()


@pytest.mark.spec("K5")
class TestKeyed:
    @pytest.mark.parametrize("parallelism", [1, 3])
    def test_state_and_timers_belong_to_the_key(self, parallelism: int) -> None:
        records = [("a", 1), ("b", 2), ("a", 5), ("b", 40), ("a", 41)]
        stream = timed(env().from_collection(records)).key_by(key).process(Counting, parallelism=parallelism)
        assert sorted(collected(stream), key=lambda r: (r[2], r[0])) == [
            ("a", 2, 15, "event_time"),  # b's timer at 12 is deleted by its record at 40, before the watermark is there
            ("b", 2, 50, "event_time"),
            ("a", 1, 51, "event_time"),
        ]

    def test_timers_fire_in_order_and_what_they_put_out_has_their_time(self) -> None:
        stream = timed(env().from_collection([("b", 3), ("a", 1)])).key_by(key).process(Counting)
        found = collected(stream.process(seen_time))
        assert [(record[0], time) for record, time in found] == [("a", 11), ("b", 13)]

    def test_a_time_between_two_milliseconds_is_the_later_one(self) -> None:
        class Between(KeyedProcessFunction[str, Pair, Any]):
            def process_element(self, value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
                context.timer_service().register_event_time_timer(value[1] + 0.5)  # type: ignore[arg-type]
                context.timer_service().register_event_time_timer(value[1] + 5.5)  # type: ignore[arg-type]
                context.timer_service().delete_event_time_timer(value[1] + 6)

            def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Any]) -> None:
                out.collect(timestamp)

        (fired,) = collected(timed(env().from_collection([("a", 1)])).key_by(key).process(Between))
        assert fired == 2
        assert type(fired) is int

    def test_processing_time_timers(self) -> None:
        class Soon(KeyedProcessFunction[str, Pair, Any]):
            def process_element(self, value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
                service = context.timer_service()
                service.register_processing_time_timer(service.current_processing_time() + 5)
                service.register_processing_time_timer(service.current_processing_time() + 600_000)
                out.collect("waits")

            def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Any]) -> None:
                out.collect((context.get_current_key(), context.time_domain()))

        fired: list[Any] = []
        both = threading.Event()

        def note(value: Any) -> None:
            fired.append(value)
            if len(fired) == 2:
                both.set()

        def records() -> Iterator[Pair]:
            yield ("a", 1)
            both.wait(60)

        start = env()
        start.from_source(records).key_by(key).process(Soon).sink(note)
        start.submit()
        assert fired == ["waits", ("a", "processing_time")], "one timer of two, and none at the end"

    def test_every_kind_of_keyed_state(self) -> None:
        class Remembers(KeyedProcessFunction[str, Pair, Any]):
            def open(self, context: FunctionContext) -> None:
                self.list = context.get_list_state(ListStateDescriptor[int]("list"))
                self.map = context.get_map_state(MapStateDescriptor[int, int]("map"))
                self.sum = context.get_reducing_state(ReducingStateDescriptor("sum", lambda a, b: a + b))

            def process_element(self, value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
                self.list.add(value[1])
                self.map.put(value[1], value[1] * 10)
                self.sum.add(value[1])
                out.collect((context.key, list(self.list.get()), dict(self.map.items()), self.sum.get()))

        found = collected(env().from_collection([("a", 1), ("b", 5), ("a", 2)]).key_by(key).process(Remembers))
        assert found == [("a", [1], {1: 10}, 1), ("b", [5], {5: 50}, 5), ("a", [1, 2], {1: 10, 2: 20}, 3)]

    def test_a_map_on_a_keyed_stream_has_state_too(self) -> None:
        class Number(MapFunction[Pair, int]):
            def open(self, context: FunctionContext) -> None:
                self.seen = context.get_state(ValueStateDescriptor("seen", 0))

            def execute(self, value: Pair) -> int:
                self.seen.update(self.seen.value() + 1)
                return self.seen.value()

        found = collected(env().from_collection([("a", 1), ("b", 5), ("a", 2)]).key_by(key).map(Number))
        assert found == [1, 1, 2]

    def test_a_plain_function(self) -> None:
        def keys(value: Pair, context: KeyedProcessContext, out: Collector[str]) -> None:
            out.collect(context.get_current_key())

        assert collected(env().from_collection([("a", 1), ("b", 2)]).key_by(key).process(keys)) == ["a", "b"]


class TestMistakes:
    def run(self, build: Callable[[DataStream[Pair]], DataStream[Any]]) -> str:
        with pytest.raises(PipelineError) as caught:
            collected(build(env().from_collection([("a", 1), ("b", 0)])))
        return str(caught.value)

    def test_state_without_keys(self) -> None:
        class Wants(MapFunction[Pair, int]):
            def open(self, context: FunctionContext) -> None:
                context.get_state(ValueStateDescriptor("seen", 0))

            def execute(self, value: Pair) -> int:
                return 1

        text = self.run(lambda stream: stream.map(Wants, name="wants"))
        assert "Operator 'wants' failed" in text
        assert "has no keyed state" in text
        assert "test_process_functions.py:" in text

    @pytest.mark.parametrize("wrong", ["soon", None, float("nan"), float("inf")])
    def test_a_timer_at_what_is_no_time(self, wrong: Any) -> None:
        def sets(value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
            context.timer_service().register_event_time_timer(wrong)

        text = self.run(lambda stream: stream.key_by(key).process(sets))
        assert "A timer needs a time in milliseconds" in text
        assert "test_process_functions.py:" in text

    def test_timers_without_keys(self) -> None:
        def sets(value: Pair, context: ProcessContext, out: Collector[Any]) -> None:
            context.timer_service().register_event_time_timer(1)

        text = self.run(lambda stream: stream.process(sets))
        assert "Operator 'process' failed" in text
        assert "cannot set timers: a timer belongs to a key" in text

    def test_a_record_at_which_it_raises(self) -> None:
        def divides(value: Pair, context: KeyedProcessContext, out: Collector[Any]) -> None:
            out.collect(1 // value[1])

        text = self.run(lambda stream: stream.key_by(key).process(divides, name="divides"))
        assert "Operator 'divides' failed" in text
        assert "ZeroDivisionError" in text
        assert "at record ('b', 0)" in text

    def test_a_timer_that_raises(self) -> None:
        class Bad(Counting):
            def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Any]) -> None:
                raise RuntimeError("in the timer")

        text = self.run(lambda stream: timed(stream).key_by(key).process(Bad, name="bad"))
        assert "Operator 'bad' failed" in text
        assert "in the timer" in text

    def test_a_key_that_raises(self) -> None:
        text = self.run(lambda stream: stream.key_by(lambda pair: 1 // pair[1]).process(seen_time, name="next"))
        assert "Operator 'key_by' failed" in text
        assert "at record ('b', 0)" in text

    @pytest.mark.parametrize(
        ("function", "cause"),
        [
            (lambda value: value, "does not take 3 arguments"),
            (AggregateFunction, "has no method process_element"),
            (3, "cannot be called"),
        ],
    )
    @pytest.mark.parametrize("keyed", [False, True])
    def test_a_wrong_function_is_found_at_its_line(self, function: Any, cause: str, keyed: bool) -> None:
        stream: DataStream[Pair] = env().from_collection([("a", 1)])
        with pytest.raises(
            PipelineError, match=r"process cannot run this function \(.*test_process_functions.py:"
        ) as c:
            (stream.key_by(key) if keyed else stream).process(function)
        assert cause in str(c.value)

    def test_an_abstract_class_is_found_at_its_line(self) -> None:
        class Unfinished(KeyedProcessFunction[str, Pair, Any]):
            pass

        with pytest.raises(PipelineError, match=r"cannot run this function") as caught:
            env().from_collection([("a", 1)]).key_by(key).process(Unfinished)
        assert "process_element" in str(caught.value)


class Mean(AggregateFunction[Pair, tuple[int, int], float]):
    def create_accumulator(self) -> tuple[int, int]:
        return (0, 0)

    def add(self, value: Pair, accumulator: tuple[int, int]) -> tuple[int, int]:
        return (accumulator[0] + value[1], accumulator[1] + 1)

    def get_result(self, accumulator: tuple[int, int]) -> float:
        return accumulator[0] / accumulator[1]


@pytest.mark.spec("K2")
class TestRollingAggregates:
    def test_aggregate(self) -> None:
        stream = env().from_collection([("a", 1), ("b", 8), ("a", 3)]).key_by(key).aggregate(Mean())
        assert collected(stream) == [1.0, 8.0, 2.0]

    def test_an_unfinished_aggregate_is_refused(self) -> None:
        class Half:
            def create_accumulator(self) -> int:
                return 0

            def add(self, value: int, accumulator: int) -> int:
                return value

        with pytest.raises(PipelineError, match=r"aggregate cannot run this function") as caught:
            env().from_collection([1]).key_by(abs).aggregate(Half())  # type: ignore[arg-type]
        assert "get_result" in str(caught.value)

    def test_count_keeps_the_times(self) -> None:
        stream = timed(env().from_collection([("a", 1), ("b", 2), ("a", 3)])).key_by(key).count()
        assert collected(stream.process(seen_time)) == [(("a", 1), 1), (("b", 1), 2), (("a", 2), 3)]

    @pytest.mark.parametrize(
        ("records", "field", "sums"),
        [
            ([("a", 1), ("a", 2)], 1, [("a", 1), ("a", 3)]),
            ([["a", 1], ["a", 2]], -1, [["a", 1], ["a", 3]]),
            ([{"k": "a", "n": 1}, {"k": "b", "n": 2}], "n", [{"k": "a", "n": 1}, {"k": "a", "n": 3}]),
            ([1.5, 2.5], None, [1.5, 4.0]),
        ],
    )
    def test_sum_of_a_field(self, records: list[Any], field: Any, sums: list[Any]) -> None:
        before = [record.copy() if hasattr(record, "copy") else record for record in records]
        assert collected(env().from_collection(records).key_by(lambda r: 0).sum(field)) == sums
        assert records == before, "records are left as they are"

    def test_min_and_max_run_in_parallel(self) -> None:
        keyed = env().from_collection(range(100)).key_by(lambda x: x % 4)
        found = collected(keyed.max(parallelism=2, name="most"))
        assert max(found) == 99
        assert sorted(collected(env().from_collection([3, 1, 2]).key_by(lambda x: 0).min())) == [1, 1, 3]

    @pytest.mark.parametrize("field", [1.5, True, b"x"])
    def test_a_field_is_a_position_or_a_name(self, field: Any) -> None:
        with pytest.raises(PipelineError, match=r"a field is a position.*test_process_functions.py:"):
            env().from_collection([1]).key_by(abs).sum(field)

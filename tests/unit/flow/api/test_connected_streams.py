"""Two streams in one operator, broadcast state, joins of keyed streams (SPEC K2, K5)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import PipelineError
from sage.core.api import DataStream, LocalEnvironment, OutputTag
from sage.core.api.function import (
    BroadcastContext,
    BroadcastProcessFunction,
    CoFlatMapFunction,
    Collector,
    CoMapFunction,
    CoProcessFunction,
    FunctionContext,
    KeyedBroadcastContext,
    KeyedBroadcastProcessFunction,
    KeyedCoProcessFunction,
    KeyedProcessContext,
    KeyedReadOnlyContext,
    MapFunction,
    OnTimerContext,
    ProcessContext,
    ReadOnlyContext,
)
from sage.core.api.state import MapStateDescriptor, ValueStateDescriptor
from sage.core.api.time import WatermarkStrategy

RULES: MapStateDescriptor[str, int] = MapStateDescriptor("rules")


def collected(stream: DataStream[Any]) -> list[Any]:
    out: list[Any] = []
    stream.sink(out.append, parallelism=1)
    stream.env.submit()
    return out


def env(**config: Any) -> LocalEnvironment:
    return LocalEnvironment("connected", config)


def after(waits: threading.Event, records: list[Any]) -> Callable[[], Iterator[Any]]:
    """A source that begins when the event is set."""

    def source() -> Iterator[Any]:
        assert waits.wait(60)
        yield from records

    return source


def seen_time(value: Any, context: ProcessContext, out: Collector[Any]) -> None:
    out.collect((value, context.timestamp()))


@pytest.mark.spec("K2")
class TestMaps:
    def test_a_class_with_a_method_for_each_stream(self) -> None:
        class Named(CoMapFunction[int, str, str]):
            def open(self, context: FunctionContext) -> None:
                self.operator = context.operator

            def map1(self, value: int) -> str:
                return f"{self.operator} number {value}"

            def map2(self, value: str) -> str:
                return f"{self.operator} word {value}"

        start = env()
        both = start.from_collection([1]).connect(start.from_collection(["a"]))
        assert sorted(collected(both.comap(Named, name="op"))) == ["op number 1", "op word a"]

    def test_functions_of_their_own_keep_the_order_of_each_stream(self) -> None:
        start = env()
        both = start.from_collection(range(50)).connect(start.from_collection("xyz" for _ in range(3)))
        out = collected(both.map(lambda n: n * 2, lambda word: word.upper()))
        assert [value for value in out if isinstance(value, int)] == list(range(0, 100, 2))
        assert [value for value in out if isinstance(value, str)] == ["XYZ"] * 3

    def test_one_function_for_both_is_opened_once(self) -> None:
        opened: list[int] = []

        class Shared(MapFunction[Any, str]):
            def open(self, context: FunctionContext) -> None:
                opened.append(context.subtask_index)

            def execute(self, value: Any) -> str:
                return f"<{value}>"

        start = env()
        both = start.from_collection([1]).connect(start.from_collection(["a"]))
        assert sorted(collected(both.map(Shared))) == ["<1>", "<a>"]
        assert opened == [0]

    def test_both_functions_are_closed_though_one_fails(self) -> None:
        closed: list[str] = []

        class Closing(MapFunction[Any, Any]):
            def __init__(self, name: str) -> None:
                self.name = name

            def execute(self, value: Any) -> Any:
                return value

            def close(self) -> None:
                closed.append(self.name)
                raise OSError(f"{self.name} does not close")

        start = env()
        both = start.from_collection([1]).connect(start.from_collection([2]))
        both.map(Closing("first").execute, Closing("second").execute, name="pair").print()
        with pytest.raises(PipelineError, match=r"Operator 'pair' failed") as caught:
            start.submit()
        assert "in close()" in str(caught.value)
        assert sorted(closed) == ["first", "second"]

    def test_flat_map(self) -> None:
        class Many(CoFlatMapFunction[int, str, Any]):
            def flat_map1(self, value: int) -> list[int]:
                return [value] * value

            def flat_map2(self, value: str) -> Iterator[str] | None:
                return iter(value) if value else None

        start = env()
        both = start.from_collection([0, 2]).connect(start.from_collection(["", "ab"]))
        assert sorted(collected(both.flat_map(Many())), key=str) == [2, 2, "a", "b"]

    def test_a_text_is_no_list_of_records(self) -> None:
        start = env()
        both = start.from_collection([1]).connect(start.from_collection(["ab"]))
        both.flat_map(lambda n: [n], lambda word: word).print()
        with pytest.raises(PipelineError, match="'co_flat_map' failed"):
            start.submit()

    def test_times_are_kept(self) -> None:
        start = env()
        strategy: WatermarkStrategy[int] = WatermarkStrategy.for_monotonous_timestamps()
        timed = start.from_collection([5]).assign_timestamps_and_watermarks(strategy.with_timestamp_assigner(int))
        both = timed.connect(timed.map(lambda n: n + 1))
        assert sorted(collected(both.map(str, str).process(seen_time))) == [("5", 5), ("6", 5)]

    def test_a_failure_names_operator_record_and_line(self) -> None:
        start = env()
        start.from_collection([1]).connect(start.from_collection([0])).map(abs, lambda n: 1 // n, name="div").print()
        with pytest.raises(PipelineError, match=r"Operator 'div' failed \(.*test_connected_streams.py:") as caught:
            start.submit()
        assert "at record 0" in str(caught.value)

    def test_three_streams(self) -> None:
        start = env()
        first, second, third = (start.from_collection([n]) for n in (1, 2, 3))
        assert sorted(collected(first.connect(second).map(str, str).connect(third).map(int, int))) == [1, 2, 3]


class TestMistakes:
    @pytest.mark.parametrize("keyed", [0, 1])
    def test_only_one_stream_has_keys(self, keyed: int) -> None:
        start = env()
        streams: list[DataStream[int]] = [start.from_collection([1]), start.from_collection([2])]
        streams[keyed] = streams[keyed].key_by(abs)
        with pytest.raises(PipelineError, match=r"stream has keys and the .* has none \(.*test_connected_streams.py:"):
            streams[0].connect(streams[1]).map(str, str)

    def test_streams_of_two_environments(self) -> None:
        with pytest.raises(PipelineError, match=r"connect mixes streams .*test_connected_streams.py:"):
            env().from_collection([1]).connect(env().from_collection([2]))

    def test_what_is_no_stream(self) -> None:
        with pytest.raises(PipelineError, match="connect needs a stream"):
            env().from_collection([1]).connect([1])  # type: ignore[call-overload]

    def test_a_function_without_the_second_method(self) -> None:
        class Half:
            def process_element1(self, value: int, context: Any, out: Any) -> None: ...

        start = env()
        both = start.from_collection([1]).connect(start.from_collection([2]))
        with pytest.raises(PipelineError, match=r"co_process cannot run this function \(.*test_connected") as caught:
            both.process(Half)  # type: ignore[arg-type]
        assert "process_element2" in str(caught.value)

    def test_the_wrong_number_of_arguments(self) -> None:
        start = env()
        both = start.from_collection([1]).connect(start.from_collection([2]))
        with pytest.raises(PipelineError, match="map cannot run this function"):
            both.map(str, lambda a, b: a)  # type: ignore[misc, arg-type]

    def test_a_broadcast_function_for_a_stream_without_keys(self) -> None:
        start = env()
        rules = start.from_collection([1]).broadcast(RULES)
        with pytest.raises(PipelineError, match=r"takes a BroadcastProcessFunction \(.*test_connected_streams.py:"):
            start.from_collection([1]).connect(rules).process(Enriched)  # type: ignore[arg-type]
        with pytest.raises(PipelineError, match="takes a KeyedBroadcastProcessFunction"):
            start.from_collection([1]).key_by(abs).connect(rules).process(Plain)  # type: ignore[arg-type]


@pytest.mark.spec("K5")
class TestKeyed:
    @pytest.mark.parametrize("parallelism", [1, 3])
    def test_both_streams_share_the_state_of_a_key(self, parallelism: int) -> None:
        class Enrich(KeyedCoProcessFunction[int, tuple[int, str], tuple[int, str], Any]):
            """Orders wait for the user's name."""

            def open(self, context: FunctionContext) -> None:
                self.name = context.get_state(ValueStateDescriptor[str | None]("name"))
                self.waiting = context.get_state(ValueStateDescriptor[list[str] | None]("waiting"))

            def process_element1(
                self, value: tuple[int, str], context: KeyedProcessContext, out: Collector[Any]
            ) -> None:
                self.name.update(value[1])
                out.extend((value[1], item) for item in self.waiting.value() or [])
                self.waiting.clear()

            def process_element2(
                self, value: tuple[int, str], context: KeyedProcessContext, out: Collector[Any]
            ) -> None:
                name = self.name.value()
                if name is None:
                    self.waiting.update([*(self.waiting.value() or []), value[1]])
                else:
                    out.collect((name, value[1]))

        start = env()
        users = start.from_collection([(n, f"user {n}") for n in range(20)]).key_by(lambda user: user[0])
        orders = start.from_collection([(n % 20, f"item {n}") for n in range(60)]).key_by(lambda order: order[0])
        found = collected(users.connect(orders).process(Enrich, parallelism=parallelism))
        assert sorted(found) == sorted((f"user {n % 20}", f"item {n}") for n in range(60))

    def test_timers_and_side_outputs(self) -> None:
        unpaid: OutputTag[int] = OutputTag("unpaid")

        class Paid(KeyedCoProcessFunction[int, int, int, int]):
            def process_element1(self, value: int, context: KeyedProcessContext, out: Collector[int]) -> None:
                context.timer_service().register_event_time_timer(100)

            def process_element2(self, value: int, context: KeyedProcessContext, out: Collector[int]) -> None:
                context.timer_service().delete_event_time_timer(100)
                out.collect(value)

            def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[int]) -> None:
                context.output(unpaid, context.get_current_key())

        begun = threading.Event()

        def orders() -> Iterator[int]:
            yield from [1, 2, 3]

        start = env()
        counted: list[int] = []

        def note(value: int) -> int:
            counted.append(value)
            if len(counted) == 3:
                begun.set()
            return value

        first = start.from_source(orders).map(note).key_by(abs)
        paid = first.connect(start.from_source(after(begun, [2])).key_by(abs)).process(Paid, parallelism=1)
        left: list[int] = []
        paid.get_side_output(unpaid).sink(left.append)
        assert collected(paid) == [2]
        assert sorted(set(left)) in ([1, 3], [1, 2, 3]), "2 too when its payment came before the order"
        assert {1, 3} <= set(left)

    def test_key_by_of_connected_streams(self) -> None:
        class Pairs(CoProcessFunction[int, str, Any]):
            def process_element1(self, value: int, context: ProcessContext, out: Collector[Any]) -> None:
                out.collect((context.key, value))

            def process_element2(self, value: str, context: ProcessContext, out: Collector[Any]) -> None:
                out.collect((context.key, value))

        start = env()
        keyed = start.from_collection([1]).connect(start.from_collection(["a"])).key_by(lambda n: n + 4, len)
        assert sorted(collected(keyed.process(Pairs))) == [(1, "a"), (5, 1)]

    @settings(deadline=None, max_examples=25)
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers())),
        st.lists(st.tuples(st.integers(0, 3), st.integers())),
        st.integers(1, 3),
    )
    def test_join_finds_every_pair(self, left: list[Any], right: list[Any], parallelism: int) -> None:
        start = env()
        keyed = start.from_collection(left).connect(start.from_collection(right)).key_by(lambda a: a[0], lambda b: b[0])
        joined = collected(keyed.join(lambda a, b: (a, b), parallelism=parallelism))
        assert sorted(joined) == sorted((a, b) for a in left for b in right if a[0] == b[0])

    def test_the_ttl_of_a_join_is_a_duration(self) -> None:
        start = env()
        keyed = start.from_collection([1]).connect(start.from_collection([2])).key_by(abs, abs)
        with pytest.raises(PipelineError, match=r"ttl is no duration \(.*test_connected_streams.py:"):
            keyed.join(max, ttl="soon")
        assert collected(keyed.join(max, ttl="1h")) == []


class Plain(BroadcastProcessFunction[int, tuple[str, int], Any]):
    """Records at or below the limit pass."""

    def process_element(self, value: int, context: ReadOnlyContext, out: Collector[Any]) -> None:
        limit = context.get_broadcast_state(RULES).get("limit")
        if limit is not None and value <= limit:
            out.collect((context.function.subtask_index, value))

    def process_broadcast_element(self, value: tuple[str, int], context: BroadcastContext, out: Collector[Any]) -> None:
        context.get_broadcast_state(RULES).put(*value)


class Enriched(KeyedBroadcastProcessFunction[int, int, tuple[str, int], Any]):
    """Sums by key; the rule `reset` sets all sums to its value."""

    sum_descriptor = ValueStateDescriptor("sum", 0)

    def open(self, context: FunctionContext) -> None:
        self.sum = context.get_state(self.sum_descriptor)

    def process_element(self, value: int, context: KeyedReadOnlyContext, out: Collector[Any]) -> None:
        self.sum.update(self.sum.value() + value)
        context.timer_service().register_event_time_timer(7)

    def process_broadcast_element(
        self, value: tuple[str, int], context: KeyedBroadcastContext, out: Collector[Any]
    ) -> None:
        context.get_broadcast_state(RULES).put(*value)
        context.apply_to_keyed_state(self.sum_descriptor, lambda key, state: state.update(value[1]))

    def on_timer(self, timestamp: int, context: OnTimerContext, out: Collector[Any]) -> None:
        rule = context.get_broadcast_state(RULES).contains("reset")  # type: ignore[attr-defined]
        out.collect((context.get_current_key(), self.sum.value(), rule))


@pytest.mark.spec("K5")
class TestBroadcast:
    def test_every_subtask_sees_every_broadcast_record(self) -> None:
        known, lock, there = [0], threading.Lock(), threading.Event()

        class Tells(Plain):
            def process_broadcast_element(self, value: Any, context: BroadcastContext, out: Collector[Any]) -> None:
                super().process_broadcast_element(value, context, out)
                with lock:
                    known[0] += 1
                    if known[0] == 3:
                        there.set()

        start = env()
        rules = start.from_collection([("limit", 10)]).broadcast(RULES)
        values = start.from_source(after(there, list(range(30))))
        found = collected(values.rebalance().connect(rules).process(Tells, parallelism=3))
        assert sorted(value for _, value in found) == list(range(11))
        assert {subtask for subtask, _ in found} == {0, 1, 2}

    def test_keyed_state_of_all_keys_and_timers(self) -> None:
        summed, there = [0], threading.Event()

        class Tells(Enriched):
            def process_element(self, value: int, context: KeyedReadOnlyContext, out: Collector[Any]) -> None:
                super().process_element(value, context, out)
                summed[0] += 1
                if summed[0] == 4:
                    there.set()

        start = env()
        rules = start.from_source(after(there, [("reset", 100)])).broadcast(RULES)
        keyed = start.from_collection([1, 2, 3, 4]).key_by(lambda n: n % 2)
        found = collected(keyed.connect(rules).process(Tells, parallelism=1))
        assert sorted(found) == [(0, 100, True), (1, 100, True)]

    def test_a_state_that_was_not_declared(self) -> None:
        other: MapStateDescriptor[str, int] = MapStateDescriptor("other")

        class Wrong(Plain):
            def process_broadcast_element(self, value: Any, context: BroadcastContext, out: Collector[Any]) -> None:
                context.get_broadcast_state(other)

        start = env()
        rules = start.from_collection([("a", 1)]).broadcast(RULES)
        start.from_collection([1]).connect(rules).process(Wrong).print()
        with pytest.raises(PipelineError, match="There is no broadcast state 'other'"):
            start.submit()

    def test_what_broadcast_state_can_do(self) -> None:
        class Uses(BroadcastProcessFunction[int, int, Any]):
            def process_element(self, value: int, context: ReadOnlyContext, out: Collector[Any]) -> None: ...

            def process_broadcast_element(self, value: int, context: BroadcastContext, out: Collector[Any]) -> None:
                state = context.get_broadcast_state(RULES)
                out.collect(state.is_empty())
                state.put_all({"a": 1, "b": 2, "c": 3})
                state.remove("b")
                state.remove("nothing")
                out.collect((list(state.keys()), list(state.values()), list(state.items()), "a" in state, context.key))
                state.clear()
                out.collect(state.get("a"))

        start = env()
        rules = start.from_collection([1]).broadcast(RULES)
        nothing: list[int] = []
        found = collected(start.from_collection(nothing).connect(rules).process(Uses, parallelism=1))
        assert found == [True, (["a", "c"], [1, 3], [("a", 1), ("c", 3)], True, None), None]

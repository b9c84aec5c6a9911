"""What would be lost without a word is refused when the pipeline is built."""

from __future__ import annotations

from typing import Any

import pytest

from sage.common.errors import PipelineError
from sage.core.api import (
    DataStream,
    KeyedProcessFunction,
    LocalEnvironment,
    ProcessFunction,
    ProcessWindowFunction,
    TumblingEventTimeWindows,
    ValueStateDescriptor,
)


def numbers() -> DataStream[int]:
    return LocalEnvironment("refused").from_collection([1, 2])


class YieldsRecords(ProcessFunction[Any, Any]):
    def process_element(self, value: Any, context: Any, out: Any) -> Any:
        yield value


class YieldsKeyed(KeyedProcessFunction[Any, Any, Any]):
    def process_element(self, value: Any, context: Any, out: Any) -> Any:
        yield value


class YieldsOnTimer(KeyedProcessFunction[Any, Any, Any]):
    def process_element(self, value: Any, context: Any, out: Any) -> Any:
        out.collect(value)

    def on_timer(self, timestamp: int, context: Any, out: Any) -> Any:
        yield timestamp


class YieldsWindow(ProcessWindowFunction[Any, Any, Any, Any]):
    def process(self, key: Any, context: Any, values: Any, out: Any) -> Any:
        yield key


class ShortTimer(KeyedProcessFunction[Any, Any, Any]):
    def process_element(self, value: Any, context: Any, out: Any) -> Any:
        out.collect(value)

    def on_timer(self, timestamp: int, context: Any) -> Any:  # type: ignore[override]
        """As in PyFlink."""


def yielding(value: Any) -> Any:
    yield value


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: numbers().process(YieldsRecords), "YieldsRecords"),
        (lambda: numbers().process(YieldsRecords()), "YieldsRecords"),
        (lambda: numbers().key_by(int).process(YieldsKeyed), "YieldsKeyed"),
        (lambda: numbers().key_by(int).process(YieldsOnTimer()), "YieldsOnTimer: on_timer"),
        (
            lambda: numbers().key_by(int).window(TumblingEventTimeWindows.of("1s")).process(YieldsWindow),
            "YieldsWindow",
        ),
    ],
)
def test_a_method_with_a_collector_that_yields(build: Any, named: str) -> None:
    with pytest.raises(PipelineError, match=named) as caught:
        build()
    assert "yields" in str(caught.value)
    assert caught.value.hint == "call out.collect(...) for each result"


@pytest.mark.parametrize("method", ["sink", "filter", "key_by"])
def test_a_generator_function_where_nothing_is_iterated(method: str) -> None:
    with pytest.raises(PipelineError, match="yields"):
        getattr(numbers(), method)(yielding)


def test_flat_map_takes_what_is_yielded() -> None:
    env, out = LocalEnvironment("taken"), []  # type: ignore[var-annotated]
    env.from_collection([1, 2]).flat_map(yielding).sink(out.append)
    env.submit()
    assert out == [1, 2]


def test_on_timer_has_three_arguments() -> None:
    with pytest.raises(PipelineError, match="ShortTimer: on_timer does not take 3 arguments") as caught:
        numbers().key_by(int).process(ShortTimer)
    assert caught.value.hint == "keyed_process calls on_timer with a time, a context and a Collector"


def test_a_field_as_a_key_is_answered_with_the_function_for_it() -> None:
    with pytest.raises(PipelineError) as caught:
        numbers().key_by("user")  # type: ignore[call-overload]
    assert "lambda record: record['user']" in str(caught.value.hint)


def test_an_unhashable_key_says_what_a_key_is() -> None:
    env = LocalEnvironment("unhashable")
    env.from_collection([1]).key_by(lambda number: [number]).count().sink(print)  # type: ignore[type-var]
    with pytest.raises(PipelineError) as caught:
        env.submit()
    assert "a key must be hashable" in str(caught.value.hint)


class WritesTooEarly(KeyedProcessFunction[Any, Any, Any]):
    def open(self, context: Any) -> None:
        self.seen = context.get_state(ValueStateDescriptor("seen", 0))
        self.seen.update(1)

    def process_element(self, value: Any, context: Any, out: Any) -> None:
        out.collect(self.seen.value())


@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
def test_state_without_a_key(backend: str) -> None:
    env = LocalEnvironment("early", {"state.backend": backend})
    env.from_collection([None, 1]).key_by(lambda key: key).process(WritesTooEarly).sink(print)
    with pytest.raises(PipelineError, match="There is no key") as caught:
        env.submit()
    assert "test_swallowed.py" in str(caught.value)

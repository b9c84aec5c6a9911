"""Names of other systems are answered with ours, and all names there are stay found."""

from __future__ import annotations

import copy

import pytest

from sage.common.errors import PipelineError
from sage.core.api import (
    BroadcastContext,
    BroadcastProcessFunction,
    Collector,
    DataStream,
    KeyedStream,
    LocalEnvironment,
    ReadOnlyContext,
    TumblingEventTimeWindows,
)
from sage.core.api.elsewhere import ENVIRONMENTS, STREAMS


def numbers() -> DataStream[int]:
    return LocalEnvironment("elsewhere").from_collection([1])


def test_what_a_stream_without_keys_lacks() -> None:
    with pytest.raises(AttributeError, match=r"'DataStream' object has no attribute 'window': call key_by"):
        numbers().window  # type: ignore[attr-defined]  # noqa: B018
    assert callable(numbers().key_by(int).window)


def test_names_of_flink() -> None:
    with pytest.raises(AttributeError, match=r"'execute': use submit\(\)"):
        LocalEnvironment("elsewhere").execute()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="give the operator uid="):
        numbers().uid("a")  # type: ignore[attr-defined]


def test_other_names_are_plain_attribute_errors_that_know_what_was_meant() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'fliter'$") as caught:
        numbers().fliter(bool)  # type: ignore[attr-defined]
    assert caught.value.name == "fliter"
    assert isinstance(caught.value.obj, DataStream)
    assert copy.copy(numbers()).name == "from_collection"


def test_the_tables_name_only_what_is_not_there() -> None:
    assert [name for name in STREAMS if hasattr(DataStream, name)] == []
    assert [name for name in ENVIRONMENTS if hasattr(LocalEnvironment, name)] == []
    keyed = [name for name, instead in STREAMS.items() if instead.startswith("call key_by")]
    assert [name for name in keyed if not hasattr(KeyedStream, name)] == []


def test_joins_say_what_comes_first() -> None:
    stream = numbers()
    with pytest.raises(AttributeError, match=r"'apply': call window\(\.\.\.\) first"):
        stream.join(stream).where(int).equal_to(int).apply(max)  # type: ignore[attr-defined]


def test_a_broadcast_function_needs_a_broadcast_with_a_state() -> None:
    class Rules(BroadcastProcessFunction[int, int, int]):
        def process_element(self, value: int, context: ReadOnlyContext, out: Collector[int]) -> None:
            out.collect(value)

        def process_broadcast_element(self, value: int, context: BroadcastContext, out: Collector[int]) -> None:
            out.collect(value)

    stream = numbers()
    with pytest.raises(PipelineError, match="not broadcast with a state") as caught:
        stream.connect(stream.broadcast()).process(Rules)  # type: ignore[arg-type]
    assert "MapStateDescriptor" in str(caught.value.hint)


def test_the_plan_does_not_show_the_key_of_window_all() -> None:
    stream = numbers()
    stream.window_all(TumblingEventTimeWindows.of("1s")).count().print()
    assert "keyed by" not in stream.env.explain()
    stream.key_by(int).count().print()
    assert "keyed by int" in stream.env.explain()

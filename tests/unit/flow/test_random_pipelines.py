"""Random pipelines give what a plain Python loop gives, however they are cut into tasks (SPEC K2, K7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.core.api import DataStream, LocalEnvironment
from sage.core.api.time import WatermarkGenerator, WatermarkOutput, WatermarkStrategy

RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass(frozen=True)
class Step:
    """An operator with its model: what it makes of one record."""

    kind: str
    number: int
    parallelism: int | None

    def apply(self, stream: DataStream[int]) -> DataStream[int]:
        n, wide = self.number, self.parallelism
        if self.kind == "map":
            return stream.map(lambda x: x + n, parallelism=wide)
        if self.kind == "filter":
            return stream.filter(lambda x: x % n != 0, parallelism=wide)
        if self.kind == "flat_map":
            return stream.flat_map(lambda x: [x] * (x % n), parallelism=wide)
        if self.kind == "rebalance":
            return stream.rebalance().map(lambda x: x - n, parallelism=wide)
        if self.kind == "rescale":
            return stream.rescale().map(lambda x: x, parallelism=wide)
        if self.kind == "global":
            return stream.global_().map(lambda x: x, parallelism=wide)
        if self.kind == "keyed":
            return stream.key_by(lambda x: str(x % n)).map(lambda x: x * 2, parallelism=wide)
        return stream.process(self._twice, parallelism=wide)

    def model(self, record: int) -> list[int]:
        n = self.number
        results: dict[str, Callable[[], list[int]]] = {
            "map": lambda: [record + n],
            "filter": lambda: [record] if record % n != 0 else [],
            "flat_map": lambda: [record] * (record % n),
            "keyed": lambda: [record * 2],
            "rebalance": lambda: [record - n],
            "rescale": lambda: [record],
            "global": lambda: [record],
            "process": lambda: [record, -record] if record % n == 0 else [record],
        }
        return results[self.kind]()

    def _twice(self, record: int, context: Any, out: Any) -> None:
        out.extend(self.model(record))


def steps(wide: bool) -> st.SearchStrategy[list[Step]]:
    parallelism = st.sampled_from([None, 1, 2, 3, 4]) if wide else st.none()
    kinds = st.sampled_from(["map", "filter", "flat_map", "keyed", "process", "rebalance", "rescale", "global"])
    return st.lists(st.builds(Step, kinds, st.integers(2, 5), parallelism), max_size=6)


configs = st.fixed_dictionaries(
    {
        "buffer.size": st.sampled_from([1, 2, 7, 1024]),
        "buffer.timeout": st.sampled_from([0, 1, 10]),
        "channel.capacity": st.integers(1, 4),
        "chaining": st.booleans(),
        "object.reuse": st.booleans(),
    }
)
records = st.lists(st.integers(0, 1000), max_size=300)


def expected(data: Iterable[int], pipeline: list[Step]) -> list[int]:
    out = list(data)
    for step in pipeline:
        out = [result for record in out for result in step.model(record)]
    return out


def ran(env: LocalEnvironment, stream: DataStream[int], pipeline: list[Step]) -> list[int]:
    out: list[int] = []
    for step in pipeline:
        stream = step.apply(stream)
    stream.sink(out.append, parallelism=1)
    env.submit()
    return out


@pytest.mark.spec("K2")
@RELAXED
@given(data=records, pipeline=steps(wide=False), config=configs)
def test_one_subtask_keeps_the_order(data: list[int], pipeline: list[Step], config: dict[str, Any]) -> None:
    """With parallelism 1 the output is exactly the loop's, in order."""
    env = LocalEnvironment("random", config)
    assert ran(env, env.from_collection(data), pipeline) == expected(data, pipeline)


@pytest.mark.spec("K2", "K7")
@RELAXED
@given(data=records, pipeline=steps(wide=True), config=configs, default=st.integers(1, 4))
def test_parallel_subtasks_lose_and_double_nothing(
    data: list[int], pipeline: list[Step], config: dict[str, Any], default: int
) -> None:
    """With any parallelism the same records come out."""
    env = LocalEnvironment("random", config | {"parallelism": default})
    assert Counter(ran(env, env.from_collection(data), pipeline)) == Counter(expected(data, pipeline))


class EachRecord(WatermarkGenerator[Any]):
    """A watermark after every third record: nothing older comes."""

    count = 0

    def on_event(self, event: Any, event_timestamp: int, output: WatermarkOutput) -> None:
        self.count += 1
        if self.count % 3 == 0:
            output.emit_watermark(event_timestamp)

    def on_periodic_emit(self, output: WatermarkOutput) -> None:
        """Everything is said."""


@pytest.mark.spec("K4")
@RELAXED
@given(data=records, pipeline=steps(wide=True), config=configs, default=st.integers(1, 3))
def test_times_go_with_records_and_no_watermark_overtakes(
    data: list[int], pipeline: list[Step], config: dict[str, Any], default: int
) -> None:
    """Whatever way a record takes, it keeps its event time, and comes before the watermark that covers it."""
    env = LocalEnvironment("times", config | {"parallelism": default})
    timed = [(record, 10 * place) for place, record in enumerate(data)]
    strategy: WatermarkStrategy[Any] = WatermarkStrategy.for_generator(EachRecord)
    dated = env.from_collection(timed).assign_timestamps_and_watermarks(
        strategy.with_timestamp_assigner(lambda pair: pair[1]), parallelism=1
    )
    stream: DataStream[int] = dated.map(lambda pair: pair[0])
    for step in pipeline:
        stream = step.apply(stream)
    out: list[tuple[int, int | None]] = []
    late: list[int] = []

    def look(record: int, context: Any, collector: Any) -> None:
        if context.timestamp() <= context.timer_service().current_watermark():
            late.append(record)
        collector.collect((record, context.timestamp()))

    stream.process(look).sink(out.append, parallelism=1)
    env.submit()
    assert late == []
    assert Counter(out) == Counter((result, time) for record, time in timed for result in expected([record], pipeline))


@RELAXED
@given(data=records, pipeline=steps(wide=False), config=configs)
def test_a_generator_is_read_like_a_list(data: list[int], pipeline: list[Step], config: dict[str, Any]) -> None:
    """Sources that may wait are read ahead in a thread; nothing changes."""

    def source() -> Iterator[int]:
        yield from data

    env = LocalEnvironment("random", config)
    assert ran(env, env.from_source(source), pipeline) == expected(data, pipeline)


@pytest.mark.spec("K2")
@RELAXED
@given(data=records, keys=st.integers(1, 20), default=st.integers(1, 4), config=configs)
def test_reduce_folds_each_key_in_order(data: list[int], keys: int, default: int, config: dict[str, Any]) -> None:
    """Every intermediate result of every key comes out, in the order of its records."""
    env = LocalEnvironment("reduce", config | {"parallelism": default})
    out: list[tuple[str, tuple[int, ...]]] = []

    def pair(x: int) -> tuple[str, tuple[int, ...]]:
        return f"k{x % keys}", (x,)

    (
        env.from_collection(data)
        .map(pair, parallelism=1)
        .key_by(lambda pair: pair[0])
        .reduce(lambda a, b: (a[0], a[1] + b[1]))
        .sink(out.append, parallelism=1)
    )
    env.submit()
    state: dict[str, tuple[int, ...]] = {}
    wanted: list[tuple[str, tuple[int, ...]]] = []
    for x in data:
        state[f"k{x % keys}"] = (*state.get(f"k{x % keys}", ()), x)
        wanted.append((f"k{x % keys}", state[f"k{x % keys}"]))
    for key in state:
        assert [entry for entry in out if entry[0] == key] == [entry for entry in wanted if entry[0] == key]
    assert len(out) == len(wanted)


@RELAXED
@given(left=records, right=records, config=configs, default=st.integers(1, 3))
def test_union_and_fan_out(left: list[int], right: list[int], config: dict[str, Any], default: int) -> None:
    """A stream with two consumers hands each record to both; a union has all records of both."""
    env = LocalEnvironment("diamond", config | {"parallelism": default})
    one, two = env.from_collection(left), env.from_collection(right)
    both = one.map(lambda x: x + 1).union(two, one.filter(lambda x: x > 500))
    out: list[int] = []
    seen: list[int] = []
    both.map(lambda x: x * 3).sink(out.append, parallelism=1)
    both.sink(seen.append, parallelism=1)
    env.submit()
    wanted = [x + 1 for x in left] + right + [x for x in left if x > 500]
    assert Counter(seen) == Counter(wanted)
    assert Counter(out) == Counter(x * 3 for x in wanted)

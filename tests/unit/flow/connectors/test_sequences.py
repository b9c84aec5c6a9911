"""Ranges and generators: order, sharing, rate, what cannot be built (SPEC K10)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.connectors.harness import ManualClock, context, everything, reader

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment
from sage.core.connectors.sequences import GeneratorSource, RangeSource

pytestmark = pytest.mark.spec("K10")


@pytest.mark.parametrize("values", [range(0), range(1), range(3, 3000), range(10, -10, -3)])
def test_one_subtask_gives_a_range_in_order(values: range) -> None:
    assert everything(RangeSource(len(values), values=values), limit=100) == list(values)


def test_subtasks_share_the_numbers() -> None:
    env = LocalEnvironment("shared", {"parallelism": 3})
    seen: list[int] = []
    env.from_generator(lambda n: n * 2, 5000, parallelism=3).sink(seen.append, parallelism=1)
    env.submit()
    assert sorted(seen) == list(range(0, 10_000, 2))


@pytest.mark.parametrize("parallelism", [1, 3])
def test_the_rate_holds_over_all_subtasks(parallelism: int) -> None:
    clock = ManualClock()
    source: GeneratorSource[int] = GeneratorSource(None, 160.0, lambda n: n)
    assert not source.bounded
    readers = [reader(source, None, context(n, parallelism, clock=clock)) for n in range(parallelism)]
    counts = []
    for _ in range(50):
        clock.now += 0.1
        records: list[Any] = []
        for made in readers:
            while taken := made.poll(1000, 0.0):
                assert isinstance(taken, list)
                records += taken
        counts.append(len(records))
    assert abs(sum(counts) - 160 * 4.9) <= 2 * parallelism  # the clock starts with the first poll
    assert max(counts[1:]) <= 16 + 2 * parallelism


def test_a_source_that_waits_for_its_rate_is_woken() -> None:
    made = reader(GeneratorSource(None, 0.001, lambda n: n))
    assert made.poll(10, 0.0) == [0]
    made.wake_up()
    assert made.poll(10, 100.0) == []


@pytest.mark.parametrize("options", [{"rate": 0}, {"rate": -1.0}, {"count": -1}])
def test_rates_and_counts_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match="positive rate and count"):
        LocalEnvironment("x").from_generator(lambda n: n, **options)
    with pytest.raises(PipelineError, match="needs a function"):
        LocalEnvironment("x").from_generator([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [(5, 0, 0), (1.5,), ("a", 3)])
def test_what_is_no_range_is_told_with_its_line(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(PipelineError, match=r"from_range needs whole numbers.*test_sequences"):
        LocalEnvironment("test").from_range(*wrong)

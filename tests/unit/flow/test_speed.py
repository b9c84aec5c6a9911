"""What the engine costs (SPEC K7), as a ratio of CPU time to a plain loop in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sage.core.api import LocalEnvironment

RECORDS = 300_000


def cpu(run: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """The least CPU time of several runs, and the result."""
    times, result = [], []
    for _ in range(5):
        started = time.process_time()
        result = run()
        times.append(time.process_time() - started)
    return min(times), result


def plain() -> list[int]:
    triple: Callable[[int], int] = lambda x: x * 3 + 1  # noqa: E731 - what the engine gets
    even: Callable[[int], bool] = lambda x: x % 2 == 0  # noqa: E731
    less: Callable[[int], int] = lambda x: x - 7  # noqa: E731
    return [less(y) for y in (triple(x) for x in range(RECORDS)) if even(y)]


def engine(config: dict[str, object]) -> list[int]:
    out: list[int] = []
    env = LocalEnvironment("speed", config)
    stream = env.from_collection(range(RECORDS)).map(lambda x: x * 3 + 1)
    stream.filter(lambda x: x % 2 == 0).map(lambda x: x - 7).sink(out.append)
    env.submit()
    return out


@pytest.mark.slow
@pytest.mark.spec("K7")
def test_fused_operators_cost_little_more_than_a_loop() -> None:
    ours, result = cpu(lambda: engine({}))
    loop, wanted = cpu(plain)
    assert result == wanted
    assert ours < 3 * loop


@pytest.mark.slow
@pytest.mark.spec("K7")
def test_a_hop_between_tasks_is_paid_by_the_batch() -> None:
    ours, result = cpu(lambda: engine({"chaining": False}))
    loop, wanted = cpu(plain)
    assert result == wanted
    assert ours < 6 * loop

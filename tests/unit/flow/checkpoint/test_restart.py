"""When a failed job starts again (SPEC K6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.core.runtime.restart import restart_strategy
from sage.core.runtime.settings import RestartKind, RestartSettings

pytestmark = pytest.mark.spec("K6")


def test_without_a_strategy_the_first_failure_is_the_jobs() -> None:
    assert restart_strategy(RestartSettings()).delay_after_failure(0.0) is None


def test_fixed_delay_counts_its_attempts() -> None:
    strategy = restart_strategy(RestartSettings(RestartKind.FIXED_DELAY, attempts=2, delay=3.0))
    assert [strategy.delay_after_failure(float(t)) for t in range(4)] == [3.0, 3.0, None, None]


def test_fixed_delay_without_a_limit() -> None:
    strategy = restart_strategy(RestartSettings(RestartKind.FIXED_DELAY, attempts=None, delay=0.5))
    assert {strategy.delay_after_failure(0.0) for _ in range(1000)} == {0.5}


def exponential(**changes: float | int | None) -> RestartSettings:
    values = {"attempts": 10, "delay": 10.0, "max_delay": 300.0, "jitter": 0.0, "reset_after": 3600.0} | changes
    return RestartSettings(RestartKind.EXPONENTIAL_DELAY, **values)  # type: ignore[arg-type]


def test_exponential_delay_as_in_the_documents() -> None:
    strategy = restart_strategy(exponential())
    delays = [strategy.delay_after_failure(0.0) for _ in range(11)]
    assert delays == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0, 300.0, None]


def test_exponential_delay_begins_anew_after_a_long_time_without_failure() -> None:
    strategy = restart_strategy(exponential(attempts=2))
    assert strategy.delay_after_failure(0.0) == 10.0
    assert strategy.delay_after_failure(100.0) == 20.0
    assert strategy.delay_after_failure(120.0 + 3600.0) == 10.0  # counted from the end of the second delay
    assert strategy.delay_after_failure(3731.0) == 20.0
    assert strategy.delay_after_failure(3752.0) is None


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20), st.floats(0, 1))
def test_jitter_stays_within_its_share_and_the_maximum(chances: list[float], jitter: float) -> None:
    numbers = iter(chances)
    strategy = restart_strategy(exponential(attempts=None, jitter=jitter), lambda: next(numbers))
    for count in range(len(chances)):
        plain = min(10.0 * 2.0**count, 300.0)
        delay = strategy.delay_after_failure(0.0)
        assert delay is not None
        assert plain * (1 - jitter) - 1e-9 <= delay <= min(300.0, plain * (1 + jitter) + 1e-9)


def test_failure_rate_forgets_what_is_long_ago() -> None:
    strategy = restart_strategy(RestartSettings(RestartKind.FAILURE_RATE, delay=1.0, failures=2, interval=60.0))
    assert strategy.delay_after_failure(0.0) == 1.0
    assert strategy.delay_after_failure(10.0) == 1.0
    assert strategy.delay_after_failure(61.0) == 1.0  # the first is past
    assert strategy.delay_after_failure(62.0) is None


@given(st.lists(st.floats(0, 50), min_size=1, max_size=60), st.integers(1, 5))
def test_failure_rate_against_counting(gaps: list[float], allowed: int) -> None:
    settings = RestartSettings(RestartKind.FAILURE_RATE, delay=1.0, failures=allowed, interval=60.0)
    strategy, times, now = restart_strategy(settings), [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        recent = sum(1 for time in times if now - time <= 60.0)
        assert strategy.delay_after_failure(now) == (1.0 if recent <= allowed else None)

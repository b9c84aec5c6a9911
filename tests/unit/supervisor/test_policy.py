"""When daemons are restarted and when they are given up: pure rules under a virtual clock."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.supervisor.policy import HealthPolicy, Probe, RestartPolicy, Tuning, Verdict

TUNING = Tuning(backoff_base_s=0.5, backoff_cap_s=30, crash_limit=5, crash_window_s=60, stable_after_s=60)


class RestartMachine(RuleBasedStateMachine):
    """Random lives of one daemon, beside a second, naive bookkeeping of the same rules."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ceilings: list[float] = []
        self.policy = RestartPolicy(TUNING, self.draw)
        self.crashes: list[float] = []
        self.unready = 0
        self.attempt = 0
        self.ready_at: float | None = None

    def draw(self, low: float, high: float) -> float:
        assert low == 0.0
        self.ceilings.append(high)
        return high

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 10.0, 59.0, 61.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def becomes_ready(self) -> None:
        self.policy.ready(self.now)
        self.ready_at, self.unready = self.now, 0

    @rule()
    def a_person_restarts_it(self) -> None:
        self.policy.reset()
        self.crashes, self.unready, self.attempt, self.ready_at = [], 0, 0, None

    @rule()
    def crashes_again(self) -> None:
        if self.ready_at is None:
            self.unready += 1
        elif self.now - self.ready_at >= TUNING.stable_after_s:
            self.crashes, self.unready, self.attempt = [], 0, 0
        self.ready_at = None
        self.crashes.append(self.now)
        recent = [when for when in self.crashes if when > self.now - TUNING.crash_window_s]
        delay = self.policy.crashed(self.now)
        if len(recent) >= TUNING.crash_limit or self.unready >= TUNING.crash_limit:
            assert delay is None, "a crash loop"
            return
        assert delay == min(TUNING.backoff_cap_s, TUNING.backoff_base_s * 2.0**self.attempt)
        self.attempt += 1

    @invariant()
    def no_delay_is_beyond_the_cap(self) -> None:
        assert all(0 < ceiling <= TUNING.backoff_cap_s for ceiling in self.ceilings)


RestartMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRestartPolicy = pytest.mark.spec("R1")(RestartMachine.TestCase)


def crashes(policy: RestartPolicy, times: list[float], *, ready: bool) -> list[float | None]:
    delays = []
    for now in times:
        if ready:
            policy.ready(now - 1)
        delays.append(policy.crashed(now))
    return delays


@pytest.mark.spec("R1")
def test_delays_double_and_full_jitter_spreads_them() -> None:
    highest = crashes(RestartPolicy(TUNING, lambda low, high: high), [0, 1, 2, 3], ready=True)
    assert highest == [0.5, 1.0, 2.0, 4.0]
    lowest = crashes(RestartPolicy(TUNING, lambda low, high: low), [0, 1, 2, 3], ready=True)
    assert lowest == [0.0] * 4
    drawn = [RestartPolicy(TUNING, random.Random(seed).uniform).crashed(0.0) or 0.0 for seed in range(200)]
    assert 0.2 < sum(drawn) / 200 < 0.3
    assert min(drawn) < 0.05
    assert max(drawn) > 0.45


@pytest.mark.spec("R1")
def test_five_crashes_in_a_minute_are_a_crash_loop() -> None:
    policy = RestartPolicy(TUNING, lambda low, high: high)
    assert None not in crashes(policy, [0, 10, 20, 30], ready=True)
    assert policy.crashed(40) is None
    slow = RestartPolicy(TUNING, lambda low, high: high)
    assert None not in crashes(slow, [0, 20, 40, 60, 80, 100, 120], ready=True)


@pytest.mark.spec("R1")
def test_a_slow_start_that_never_succeeds_is_a_crash_loop_too() -> None:
    """Five starts of two minutes each never meet in one minute; it would go on for ever."""
    policy = RestartPolicy(TUNING, lambda low, high: high)
    assert None not in crashes(policy, [0, 120, 240, 360], ready=False)
    assert policy.crashed(480) is None


@pytest.mark.spec("R1")
def test_a_long_good_life_forgives() -> None:
    policy = RestartPolicy(TUNING, lambda low, high: high)
    crashes(policy, [0, 1, 2, 3], ready=True)
    policy.ready(10)
    assert policy.crashed(75) == TUNING.backoff_base_s


def test_the_delay_has_a_cap() -> None:
    policy = RestartPolicy(TUNING, lambda low, high: high)
    delays = crashes(policy, [100.0 * n for n in range(1, 60)], ready=True)
    assert delays[0] == 0.5
    policy = RestartPolicy(Tuning(crash_limit=10**6, stable_after_s=10**9), lambda low, high: high)
    assert crashes(policy, [100.0 * n for n in range(1, 2000)], ready=True)[-1] == 30.0


def judged(policy: HealthPolicy, *probes: Probe) -> list[Verdict]:
    return [policy.seen(probe) for probe in probes]


@pytest.mark.spec("R1")
def test_silence_is_unhealthy_and_then_fatal() -> None:
    verdicts = judged(HealthPolicy(TUNING), *[Probe.SILENT] * 6)
    assert verdicts == [Verdict.HEALTHY] * 2 + [Verdict.UNHEALTHY] * 3 + [Verdict.RESTART]


@pytest.mark.spec("R1")
def test_one_answer_ends_the_silence() -> None:
    policy = HealthPolicy(TUNING)
    assert judged(policy, *[Probe.SILENT] * 5, Probe.OK, *[Probe.SILENT] * 2)[-3:] == [Verdict.HEALTHY] * 3


@pytest.mark.spec("R1")
def test_a_little_silence_changes_nothing() -> None:
    policy = HealthPolicy(TUNING)
    assert judged(policy, Probe.NOT_READY, Probe.SILENT) == [Verdict.UNHEALTHY] * 2
    assert judged(policy, Probe.OK, Probe.SILENT) == [Verdict.HEALTHY] * 2


@pytest.mark.spec("R1")
def test_a_daemon_that_answers_not_ready_is_never_restarted() -> None:
    assert set(judged(HealthPolicy(TUNING), *[Probe.NOT_READY] * 100)) == {Verdict.UNHEALTHY}


@pytest.mark.spec("R1")
@pytest.mark.parametrize(("restart_sick", "last"), [(True, Verdict.RESTART), (False, Verdict.UNHEALTHY)])
def test_a_daemon_that_calls_itself_broken(restart_sick: bool, last: Verdict) -> None:
    """The gateway is unhealthy while its engines are: its restart would heal nothing."""
    verdicts = judged(HealthPolicy(TUNING, restart_sick), *[Probe.SICK] * 6)
    assert verdicts == [Verdict.UNHEALTHY] * 5 + [last]

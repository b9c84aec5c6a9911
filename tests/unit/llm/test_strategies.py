"""Scheduling policies: nothing is lost, nothing starves, and each keeps its own promise."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.llm.control_plane.strategies import (
    AdaptivePolicy,
    FairPolicy,
    FIFOPolicy,
    HybridPolicy,
    PriorityPolicy,
    SLOAwarePolicy,
    Ticket,
    create_policy,
    policy_names,
    register_policy,
    registry,
)

pytestmark = pytest.mark.spec("G3")


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


KINDS = st.sampled_from(["llm_chat", "embedding"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "pop", "remove", "done", "switch"]),
        st.builds(
            Ticket,
            kind=KINDS,
            key=st.sampled_from("abc"),
            tokens=st.integers(0, 5000),
            priority=st.integers(-500, 500),
            deadline=st.none() | st.floats(0, 50),
        ),
        st.integers(0, 10_000),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", policy_names())
@given(steps=STEPS)
def test_every_ticket_leaves_exactly_once(name: str, steps: list[tuple[str, Ticket, int]]) -> None:
    clock = Clock()
    policy = create_policy(name, clock)
    waiting: list[Ticket] = []
    running: deque[Ticket] = deque()
    for step, ticket, number in steps:
        clock.now += number / 1000
        if step == "add":
            ticket.arrived = clock.now
            assert policy.ahead(ticket) >= 0
            policy.add(ticket)
            waiting.append(ticket)
        elif step == "pop":
            popped = policy.pop()
            assert (popped is None) == (not waiting)
            if popped is not None:
                waiting.remove(popped)
                running.append(popped)
        elif step == "remove" and waiting:
            policy.remove(waiting.pop(number % len(waiting)))
        elif step == "done" and running:
            policy.done(running.popleft(), number, 1.0)
        elif step == "switch":
            name = policy_names()[number % len(policy_names())]
            fresh = create_policy(name, clock)
            for each in policy.tickets():
                fresh.add(each)
            policy = fresh
        assert policy.tickets() == waiting
    while waiting:
        popped = policy.pop()
        assert popped is not None
        waiting.remove(popped)
    assert policy.pop() is None
    assert len(policy) == 0


@pytest.mark.parametrize("name", policy_names())
@given(
    victim=st.builds(Ticket, kind=KINDS, key=st.sampled_from("ab"), tokens=st.integers(1, 10**6), priority=st.just(-9)),
    rival=st.builds(Ticket, kind=KINDS, key=st.sampled_from("abc"), tokens=st.integers(1, 100), priority=st.just(9)),
    older=st.integers(0, 5),
)
def test_nothing_starves(name: str, victim: Ticket, rival: Ticket, older: int) -> None:
    """However many better tickets come, one for each that is served: the promise of AgeingPolicy holds."""
    clock = Clock()
    policy = create_policy(name, clock)
    for _ in range(older):
        policy.add(Ticket())
    policy.add(victim)
    pops = 0
    while True:
        clock.now += 1.0
        policy.add(
            Ticket("", rival.kind, rival.key, rival.tokens, rival.priority, deadline=clock.now + 0.1, arrived=clock.now)
        )
        popped = policy.pop()
        pops += clock.now > 30.0
        if popped is victim:
            return
        assert pops <= 2 * (older + 1)


def test_an_unknown_policy_names_the_nearest() -> None:
    for wrong, right in (("slo-aware", "slo_aware"), ("fare", "fair"), ("Hybird", "hybrid")):
        with pytest.raises(ConfigError) as refused:
            create_policy(wrong, Clock())
        assert right in refused.value.hint
    assert policy_names() == ("fifo", "fair", "priority", "slo_aware", "adaptive", "hybrid")


def test_a_policy_can_be_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    register_policy("mine", FIFOPolicy)
    assert isinstance(create_policy("mine", Clock()), FIFOPolicy)
    with pytest.raises(ConfigError, match="already"):
        register_policy("fifo", FIFOPolicy)


def test_priority_ages() -> None:
    policy = PriorityPolicy(Clock(), level_seconds=5.0)
    low, high, late = Ticket(priority=0), Ticket(priority=1, arrived=4.0), Ticket(priority=1, arrived=6.0)
    for ticket in (late, low, high):
        policy.add(ticket)
    assert [policy.pop() for _ in range(3)] == [high, low, late]
    assert policy.ahead(low) == 0


def test_deadlines_come_first_and_hopeless_ones_last() -> None:
    clock = Clock()
    policy = SLOAwarePolicy(clock)
    missed, soon, later, never = (Ticket(deadline=each) for each in (1.0, 5.0, 9.0, None))
    for ticket in (never, later, soon, missed):
        policy.add(ticket)
    clock.now = 2.0
    assert [policy.pop() for _ in range(4)] == [soon, later, never, missed]


def test_what_would_wait_past_its_deadline_is_refused() -> None:
    clock = Clock()
    policy = SLOAwarePolicy(clock)
    clock.now = 10.0
    assert policy.admit(Ticket(deadline=15.0), 5.0) is None
    assert policy.admit(Ticket(), 500.0) is None
    refusal = policy.admit(Ticket(deadline=15.0), 8.5)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == ("deadline_unreachable", 4)


SIZES = st.lists(st.integers(1, 3000), min_size=80, max_size=80)


@given(first=SIZES, second=SIZES)
def test_two_keys_that_wait_never_differ_by_more_than_deficit_round_robin_allows(
    first: list[int], second: list[int]
) -> None:
    policy = FairPolicy(Clock(), quantum=512)
    for key, sizes in (("a", first), ("b", second)):
        for tokens in sizes:
            policy.add(Ticket(key=key, tokens=tokens))
    served = {"a": 0, "b": 0}
    left = {"a": 80, "b": 80}
    while True:
        ticket = policy.pop()
        assert ticket is not None
        served[ticket.key] += ticket.tokens
        left[ticket.key] -= 1
        if not all(left.values()):
            return
        assert abs(served["a"] - served["b"]) <= 3000 + 2 * 512


def test_a_key_pays_for_what_it_did_not_announce() -> None:
    policy = FairPolicy(Clock(), quantum=100)
    for _ in range(200):
        policy.add(Ticket(key="liar", tokens=100))
        policy.add(Ticket(key="honest", tokens=100))
    served = {"liar": 0, "honest": 0}
    for _ in range(100):
        ticket = policy.pop()
        assert ticket is not None
        took = 400 if ticket.key == "liar" else 100
        served[ticket.key] += took
        policy.done(ticket, took, 1.0)
    assert max(served.values()) <= 1.2 * min(served.values())


@given(keys=st.lists(st.text(max_size=3), max_size=50))
def test_idle_keys_are_forgotten(keys: list[str]) -> None:
    policy = FairPolicy(Clock())
    for key in keys:
        policy.add(Ticket(key=key, tokens=100))
    while (ticket := policy.pop()) is not None:
        policy.done(ticket, 1000, 1.0)
    assert not policy._credit
    assert not policy._running_of
    assert not policy._queues


@pytest.mark.parametrize(
    ("tickets", "mode"),
    [
        ([Ticket() for _ in range(4)], "fifo"),
        ([Ticket(priority=p) for p in range(4)], "priority"),
        ([Ticket(key="a", tokens=1000), Ticket(key="b", tokens=10)], "fair"),
        ([Ticket(deadline=9.0), Ticket(priority=3)], "slo_aware"),
    ],
)
def test_adaptive_follows_the_load_but_does_not_flap(tickets: list[Ticket], mode: str) -> None:
    clock = Clock()
    policy = AdaptivePolicy(clock, dwell_seconds=2.0)
    for ticket in tickets:
        policy.add(ticket)
    policy.pop()
    assert policy.mode == mode
    for ticket in policy.tickets():
        policy.remove(ticket)
    for _ in range(2):
        policy.add(Ticket())
    policy.pop()
    assert policy.mode == mode, "within the dwell time"
    clock.now = 2.0
    policy.pop()
    assert policy.mode == "fifo"


@pytest.mark.parametrize(("priority", "embeddings"), [("high", 40), ("normal", 12), ("low", 0), ("adaptive", 20)])
def test_hybrid_shares_between_llm_and_embedding_work(priority: str, embeddings: int) -> None:
    policy = HybridPolicy(Clock(), embedding_priority=priority)  # type: ignore[arg-type]
    for _ in range(100):
        policy.add(Ticket(kind="embedding", tokens=100))
        policy.add(Ticket(kind="llm_chat", tokens=100))
    popped = [policy.pop() for _ in range(40)]
    assert sum(ticket.kind == "embedding" for ticket in popped if ticket) == pytest.approx(embeddings, abs=1)

"""The router of a runtime, without processes: what goes where, and that nothing is lost whatever dies (SPEC E6).

A fake node gives the number of tokens that a request has as its next token, so an answer that goes on elsewhere after a
death is right exactly when it counts on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sagellm_core.engine_core.messages import CoreStats, Submission, Update
from sagellm_core.engine_core.plan import SampledToken
from sagellm_core.kv_transfer import KVAddress
from sagellm_core.nodes.messages import (
    Arrived,
    Cancel,
    Enter,
    Expect,
    Full,
    Job,
    News,
    NotSent,
    Prefill,
    Proceed,
    Reserved,
    Room,
    Sent,
    Up,
)
from sagellm_core.nodes.router import MOST_ATTEMPTS, Router
from sagellm_core.nodes.state import NodeState, Role
from sagellm_core.wire import Fault
from sagellm_protocol import SamplingParams
from sagellm_protocol.messages import FinishReason

pytestmark = pytest.mark.spec("E6")


@dataclass(eq=False)
class FakeNode:
    """Carries out orders one by one; what it reports goes to the router at once."""

    name: str
    role: Role
    net: Net
    state: NodeState = field(init=False)
    orders: deque[Any] = field(default_factory=deque)
    expecting: dict[str, Job] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    full: bool = False
    fails: bool = False

    def __post_init__(self) -> None:
        self.state = self.net.router.add_node(self.name, self.role, self.orders.append)

    @property
    def address(self) -> KVAddress:
        return KVAddress(self.name, 1)

    def come_up(self) -> None:
        self.orders.clear()
        self.say(Up(self.address, 256, CoreStats(kv_blocks=8, block_size=4)))

    def die(self, *, returning: bool) -> None:
        for held in (self.orders, self.expecting, self.running, self.jobs):
            held.clear()
        self.net.router.on_lost(self.state, f"{self.name} died", returning=returning)

    def say(self, message: Any) -> None:
        self.net.router.on_message(self.state, message)

    def obey(self) -> None:
        """Carry out the oldest order."""
        order = self.orders.popleft()
        if isinstance(order, Enter):
            self.enter(order.job)
        elif isinstance(order, Expect):
            if self.full:
                self.say(Full(order.job.id))
            else:
                wanted = (len(order.job.tokens) - 1) // 4
                self.say(Reserved(order.job.id, 1, wanted))
                if wanted > 1:
                    self.expecting[order.job.id] = order.job
                else:
                    self.enter(order.job)
        elif isinstance(order, Proceed):
            if order.id in self.expecting:
                self.enter(self.expecting.pop(order.id))
        elif isinstance(order, Cancel):
            for held in (self.expecting, self.running, self.jobs):
                held.pop(order.id, None)
        elif isinstance(order, Prefill):
            self.prefill(order)

    def prefill(self, order: Prefill) -> None:
        assert len(order.tokens) == order.wanted * 4
        target = self.net.nodes.get(order.to.host)
        if self.fails:
            self.say(NotSent(order.id, Fault("internal", "cannot")))
            return
        if target is not None and order.id in target.expecting:
            target.say(Arrived(order.id, order.wanted - order.have, 100, 1.0, 0))
            target.enter(target.expecting.pop(order.id))
        self.say(Sent(order.id))

    def enter(self, job: Job) -> None:
        assert self.role is not Role.PREFILL
        self.jobs[job.id] = job
        self.running[job.id] = len(job.output)

    def step(self) -> None:
        """Every answer of the running requests gets its next token; those that have all end."""
        updates = []
        for name, token in list(self.running.items()):
            self.running[name] += 1
            sampling = self.jobs[name].sampling
            reason: FinishReason | None = "length" if token + 1 >= sampling.max_tokens else None
            tokens = [SampledToken(token)]
            updates += [Update(name, 0.0, tokens, "", reason, index=index) for index in range(sampling.n)]
            if reason:
                del self.running[name]
        if updates:
            self.say(News(updates))


class Net:
    """A router with fake nodes; what requests got."""

    def __init__(self, *roles: Role, threshold: int = 8) -> None:
        self.updates: dict[str, list[Update]] = {}
        self.now = 0.0
        self.router = Router(self.deliver, lambda: self.now, block_size=4, threshold_tokens=threshold)
        self.nodes: dict[str, FakeNode] = {}
        for index, role in enumerate(roles):
            node = self.nodes[f"{role}-{index}"] = FakeNode(f"{role}-{index}", role, self)
            node.come_up()

    def deliver(self, updates: list[Update]) -> None:
        for update in updates:
            self.updates.setdefault(update.seq_id, []).append(update)

    def submit(self, name: str, length: int = 20, max_tokens: int = 4, **more: Any) -> None:
        sampling = SamplingParams(max_tokens=max_tokens, **more)
        self.router.submit(Submission(name, list(range(length)), sampling))

    def obey_all(self) -> None:
        while any(node.orders for node in self.nodes.values()):
            for node in self.nodes.values():
                while node.orders:
                    node.obey()

    def finish(self) -> None:
        for _ in range(200):
            self.obey_all()
            if not self.router.flights:
                return
            for node in self.nodes.values():
                node.step()

    def tokens(self, name: str, index: int = 0) -> list[int]:
        mine = [update for update in self.updates.get(name, ()) if update.index == index]
        return [token.token_id for update in mine for token in update.tokens]

    def end(self, name: str) -> str | None:
        return self.updates[name][-1].finish_reason


def kinds(node: FakeNode) -> list[str]:
    return [type(order).__name__ for order in node.orders]


def test_a_long_prompt_is_filled_elsewhere_a_short_one_is_not() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    prefill, decode = net.nodes.values()
    net.submit("short", length=7)
    net.submit("long")
    assert kinds(decode) == ["Enter", "Expect"]
    decode.obey()
    decode.obey()
    (order,) = prefill.orders
    assert (order.have, order.wanted, order.to) == (1, 4, decode.address)
    assert order.tokens == list(range(16))
    net.finish()
    assert net.tokens("short") == net.tokens("long") == [0, 1, 2, 3]
    assert net.updates["long"][-1].kv_transfer == (3, 100, 1.0)
    assert net.updates["long"][-1].cached_tokens == 4, "one block was there; what travelled was computed for it"
    assert net.router.transfers.transfers == 1
    assert not net.router.flights


@pytest.mark.parametrize("more", [{"prompt_logprobs": 1}, {"strategy": "contrastive", "top_k": 4}])
def test_what_reads_no_prefix_goes_whole_to_a_node_that_decodes(more: dict[str, Any]) -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    net.submit("a", **more)
    assert [kinds(node) for node in net.nodes.values()] == [[], ["Enter"]]


def test_a_full_node_is_not_asked_again_before_it_has_room() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    prefill, decode = net.nodes.values()
    decode.full = True
    net.submit("a")
    net.submit("b", length=5)
    net.obey_all()
    assert kinds(prefill) == [], "nothing is computed for a node that has no room for it"
    assert net.router.num_waiting == 1
    net.submit("c", length=5)
    assert net.router.num_waiting == 2, "who comes later waits behind"
    decode.full = False
    decode.say(Room())
    net.finish()
    assert [net.end(name) for name in "abc"] == ["length"] * 3


def test_the_more_urgent_goes_first_and_who_lost_its_node_keeps_its_place() -> None:
    net = Net(Role.DECODE)
    (node,) = net.nodes.values()
    for name in "ab":
        net.submit(name, length=5)
    net.obey_all()
    node.die(returning=True)
    net.submit("c", length=5)
    net.router.submit(Submission("urgent", [1, 2], SamplingParams(), priority=1))
    node.come_up()
    assert [order.job.id for order in node.orders] == ["urgent#0", "a#1", "b#1", "c#0"]


def test_hybrid_nodes_share_the_work() -> None:
    net = Net(Role.HYBRID, Role.HYBRID)
    for name in "abcd":
        net.submit(name)
    net.obey_all()
    assert [len(node.running) for node in net.nodes.values()] == [2, 2]


def test_without_a_node_that_prefills_the_others_do_it_themselves() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    prefill, decode = net.nodes.values()
    net.submit("a")
    decode.obey()
    assert kinds(prefill) == ["Prefill"]
    prefill.die(returning=True)
    assert kinds(decode) == ["Proceed"]
    net.submit("b")
    assert kinds(decode) == ["Proceed", "Enter"]
    net.finish()
    assert net.tokens("a") == net.tokens("b") == [0, 1, 2, 3]


def test_a_prefill_that_fails_costs_nothing_but_time() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    prefill, _ = net.nodes.values()
    prefill.fails = True
    net.submit("a")
    net.finish()
    assert net.tokens("a") == [0, 1, 2, 3]
    assert net.router.transfers.failures == 1


def test_an_answer_goes_on_with_the_next_token_where_its_node_died() -> None:
    net = Net(Role.PREFILL, Role.DECODE, Role.DECODE)
    prefill, first, second = net.nodes.values()
    net.submit("a", max_tokens=6)
    net.obey_all()
    first.step()
    first.step()
    first.die(returning=False)
    (order,) = second.orders
    assert order.job.output == [0, 1]
    second.obey()
    assert prefill.orders[0].tokens == [*range(20)], "prompt and answer so far: the first five of the blocks"
    net.finish()
    assert net.tokens("a") == [0, 1, 2, 3, 4, 5]
    assert net.router.transfers.re_prefills == 1


def test_several_answers_begin_again_only_before_the_first_token() -> None:
    net = Net(Role.DECODE, Role.DECODE)
    first, second = net.nodes.values()
    net.submit("early", n=2)
    net.obey_all()
    first.die(returning=False)
    assert kinds(second) == ["Enter"]
    net.obey_all()
    second.step()
    second.die(returning=False)
    ends = [(update.index, update.finish_reason) for update in net.updates["early"] if update.finish_reason]
    assert ends == [(0, "error"), (1, "error")]


def test_a_request_that_kills_every_node_is_given_up() -> None:
    net = Net(Role.DECODE)
    (node,) = net.nodes.values()
    net.submit("poison", length=4)
    for _ in range(MOST_ATTEMPTS):
        assert kinds(node) == ["Enter"]
        node.die(returning=True)
        node.come_up()
    error = net.updates["poison"][-1].error
    assert error is not None
    assert error.retryable
    assert "died" in error.message


def test_nobody_waits_for_nodes_that_will_not_come_back() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    _, decode = net.nodes.values()
    decode.die(returning=True)
    net.submit("patient", length=4)
    assert "patient" not in net.updates
    decode.die(returning=False)
    assert net.end("patient") == "error"


def test_a_deadline_ends_a_request_that_waits_here() -> None:
    net = Net(Role.DECODE)
    (node,) = net.nodes.values()
    node.die(returning=True)
    net.router.submit(Submission("late", [1], SamplingParams(), deadline=5.0))
    net.router.expire()
    assert "late" not in net.updates
    net.now = 5.0
    net.router.expire()
    error = net.updates["late"][-1].error
    assert error is not None
    assert error.code == "deadline_exceeded"


def test_silence_is_noticed() -> None:
    net = Net(Role.PREFILL, Role.DECODE)
    prefill, decode = net.nodes.values()
    net.now = 10.0
    decode.say(Room())
    assert net.router.silent(5.0) == [prefill.state]


class Routed(RuleBasedStateMachine):
    """Nodes die, return, fill up and fail in any order between any two orders."""

    @initialize(roles=st.lists(st.sampled_from(Role), min_size=1, max_size=4))
    def begin(self, roles: list[Role]) -> None:
        self.net = Net(*roles, Role.DECODE)
        self.count = 0
        self.cancelled: set[str] = set()

    @rule(length=st.integers(1, 30), max_tokens=st.integers(1, 5), answers=st.sampled_from([1, 1, 1, 2]))
    def submit(self, length: int, max_tokens: int, answers: int) -> None:
        self.count += 1
        self.net.submit(str(self.count), length, max_tokens, n=answers)

    @precondition(lambda self: self.net.router.flights)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.net.router.flights)))
        self.cancelled.add(name)
        self.net.router.cancel(name)

    @rule(data=st.data())
    def obey(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(list(self.net.nodes.values())))
        if node.orders:
            node.obey()

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.net.nodes.values()))).step()

    @rule(data=st.data(), back=st.booleans())
    def die(self, data: st.DataObject, back: bool) -> None:
        node = data.draw(st.sampled_from(list(self.net.nodes.values())))
        if node.state.up:
            node.die(returning=True)
        if back:
            node.come_up()

    @rule(data=st.data(), full=st.booleans(), fails=st.booleans())
    def turn(self, data: st.DataObject, full: bool, fails: bool) -> None:
        node = data.draw(st.sampled_from(list(self.net.nodes.values())))
        if node.full and not full and node.state.up:
            node.say(Room())
        node.full, node.fails = full, fails

    def teardown(self) -> None:
        if not hasattr(self, "net"):
            return
        for node in self.net.nodes.values():
            if not node.state.up:
                node.come_up()
            node.full = False
            node.say(Room())
        self.net.finish()
        assert not self.net.router.flights
        assert not self.net.router.num_waiting
        for node in self.net.nodes.values():
            assert not node.running
            assert not node.expecting
            assert not node.state.requests
            assert not node.state.prompts
        for number in range(1, self.count + 1):
            self.check(str(number))

    def check(self, name: str) -> None:
        updates = self.net.updates[name]
        ends = [update for update in updates if update.finish_reason is not None]
        assert ends[-1] is updates[-1], "nothing comes after the end"
        assert len({update.index for update in ends}) == len(ends), "every answer ends once"
        for answer in ends:
            tokens = self.net.tokens(name, answer.index)
            assert tokens == list(range(len(tokens))), "no token is lost, none comes twice"
        if name in self.cancelled:
            assert ends[-1].finish_reason == "cancelled"


Routed.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestRouted = Routed.TestCase

"""Which of several engines takes a request, and the queue's policy on the manager."""

import asyncio
import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.llm.asgi import ApiError
from sage.llm.control_plane import AdmissionRefused, ControlPlaneManager, RequestClassifier
from sage.llm.control_plane import placement as module
from sage.llm.control_plane.classifier import InferenceCall
from sage.llm.control_plane.placement import ReplicaChooser
from sage.llm.control_plane.strategies import Ticket
from sage.llm.control_plane.upstream import Upstream
from sage.llm.gateway.hints import key_of, with_headers

pytestmark = pytest.mark.spec("G3")
CHAT = "/v1/chat/completions"


def call(text: str = "", **fields: object) -> InferenceCall:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return RequestClassifier().classify(CHAT, json.dumps(body).encode())


def engines(number: int) -> list[Upstream]:
    manager = ControlPlaneManager()
    return [manager.add("llm", f"http://127.0.0.1:{port}") for port in range(1, number + 1)]


async def load(engine: Upstream, tokens: int) -> None:
    await engine.queue.acquire(Ticket(tokens=tokens))


async def test_the_less_loaded_of_two_takes_it_by_tokens() -> None:
    first, second = engines(2)
    await load(first, 1000)
    for _ in range(5):
        await load(second, 10)
    assert ReplicaChooser(random.Random(0)).choose(call(), [first, second]) is second


async def test_two_choices_spread_load_far_better_than_one() -> None:
    pool, chooser = engines(16), ReplicaChooser(random.Random(1))
    for engine in pool:
        engine.queue.max_running = 1000
    rng, alone = random.Random(1), [0] * 16
    for _ in range(1600):
        await load(chooser.choose(call(), pool), 10)
        alone[rng.randrange(16)] += 10
    assert max(one.queue.outstanding_tokens for one in pool) - 1000 < (max(alone) - 1000) / 2


async def test_a_prefix_goes_where_it_was_seen_unless_that_costs_more_than_it_saves() -> None:
    pool, chooser = engines(8), ReplicaChooser(random.Random(2))
    system = "You are a patient assistant. " * 200
    home = chooser.choose(call(system + "first question"), pool)
    await load(home, 500)
    assert all(chooser.choose(call(system + f"question {number}"), pool) is home for number in range(20))
    await load(home, 5000)
    assert chooser.choose(call(system + "another"), pool) is not home


async def test_a_session_stays_while_its_engine_is_not_overloaded() -> None:
    pool, chooser = engines(8), ReplicaChooser(random.Random(3))
    talk = call(prompt_cache_key="talk-1")
    home = chooser.choose(talk, pool)
    await load(home, 3000)
    assert all(chooser.choose(talk, pool) is home for _ in range(20))
    await load(home, 3000)
    elsewhere = chooser.choose(talk, pool)
    assert elsewhere is not home
    assert chooser.choose(talk, [one for one in pool if one is not elsewhere]) is not elsewhere


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_BLOCKS", 10)
    monkeypatch.setattr(module, "REMEMBERED_SESSIONS", 5)
    pool, chooser = engines(2), ReplicaChooser()
    for number in range(50):
        chooser.choose(call(f"{number}" * 2000, prompt_cache_key=f"s{number}"), pool)
    assert (len(chooser._blocks), len(chooser._sessions)) == (10, 5)


@given(st.binary(max_size=4000), st.binary(max_size=4000))
def test_prefix_hashes_agree_as_far_as_the_prompts_do(one: bytes, other: bytes) -> None:
    blocks = module.prefix_blocks("m", msgspec.Raw(one)), module.prefix_blocks("m", msgspec.Raw(other))
    for at, (left, right) in enumerate(zip(*blocks, strict=False), 1):
        assert (left == right) == (one[: at * module.BLOCK_BYTES] == other[: at * module.BLOCK_BYTES])


async def test_the_policy_can_be_switched_while_requests_wait() -> None:
    manager = ControlPlaneManager(max_running=1)
    engine = manager.add("llm", "http://127.0.0.1:1")
    first = Ticket()
    admitted = await engine.queue.acquire(first)
    order: list[int] = []

    async def work(priority: int) -> None:
        ticket = Ticket(priority=priority)
        entered = await engine.queue.acquire(ticket)
        order.append(priority)
        engine.queue.release(entered, ticket)

    tasks = [asyncio.create_task(work(priority)) for priority in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match="priorty"):
        manager.use_policy("priorty")
    assert manager.policy == "fifo"
    manager.use_policy("priority")
    engine.queue.release(admitted, first)
    await asyncio.gather(*tasks)
    assert (order, manager.policy) == ([3, 2, 1], "priority")
    assert manager.add("llm", "http://127.0.0.1:2").queue.policy.name == "priority"
    assert engine.queue.outstanding == engine.queue.outstanding_tokens == 0
    with pytest.raises(ConfigError):
        ControlPlaneManager(policy="fastest")


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    manager = ControlPlaneManager(max_running=1, policy="slo_aware", clock=lambda: 100.0)
    engine = manager.add("llm", "http://127.0.0.1:1")
    await engine.queue.acquire(manager.ticket(call(deadline_ms=1)))
    with pytest.raises(AdmissionRefused) as refused:
        await engine.queue.acquire(manager.ticket(call(deadline_ms=900)))
    assert refused.value.refusal.retry_after == 1
    assert (engine.queue.running, engine.queue.waiting) == (1, 0)
    waiter = asyncio.create_task(engine.queue.acquire(manager.ticket(call(deadline_ms=1100))))
    await asyncio.sleep(0)
    assert engine.queue.waiting == 1
    waiter.cancel()


def test_what_scheduling_reads_of_a_request() -> None:
    asked = call("x" * 400, max_tokens=50, priority=-2, deadline_ms=1500, prompt_cache_key="s")
    assert 150 <= asked.tokens <= 200
    assert (asked.priority, asked.deadline_ms, asked.session) == (-2, 1500, "s")
    odd = call(max_tokens="many", priority=[1], deadline_ms=None, prompt_cache_key=7)
    assert (odd.priority, odd.deadline_ms, odd.session) == (0, None, "")
    for wrong in ("soon", -1, 1e12, [1]):
        with pytest.raises(ApiError) as refused:
            call(deadline_ms=wrong)
        assert (refused.value.status, refused.value.param) == (400, "deadline_ms")
    scope = {
        "headers": [(b"x-sage-deadline-ms", b"250"), (b"x-sage-session-id", b"t"), (b"authorization", b"Bearer k")]
    }
    told = with_headers(asked, scope)
    assert (told.deadline_ms, told.session, told.body) == (250, "t", asked.body)
    assert key_of(scope) not in ("", "Bearer k")
    assert key_of({"headers": []}) == ""
    with pytest.raises(ApiError):
        with_headers(asked, {"headers": [(b"x-sage-deadline-ms", b"nan")]})

"""Continuous batching, without a model: a fake executor answers with numbers.

SPEC E4: chunked prefill under one budget, prefix hits, preemption by recompute, admission, cancellation at any step.
"""

from collections.abc import Sequence as Seq
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sagellm_core.engine_core import (
    BatchType,
    BlockManager,
    SampledToken,
    Scheduler,
    SchedulerConfig,
    SchedulerOutput,
    Sequence,
    SequenceStatus,
    StepOutput,
)
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E4")


def make(
    *, blocks: int = 16, size: int = 4, batch: int = 4, budget: int = 16, context: int = 64, prefix: bool = True
) -> Scheduler:
    return Scheduler(SchedulerConfig(batch, budget, context), BlockManager(blocks, size, prefix_cache=prefix))


def add(scheduler: Scheduler, name: str, prompt: Seq[int], max_tokens: int = 4, **more: Any) -> Sequence:
    return scheduler.add(name, list(prompt), SamplingParams(max_tokens=max_tokens), **more)


def execute(plan: SchedulerOutput, token: int = 7) -> StepOutput:
    sampled = [name for name, samples in zip(plan.seq_ids, plan.samples, strict=True) if samples]
    return StepOutput(plan.step, {name: [SampledToken(token)] for name in sampled})


def step(scheduler: Scheduler, token: int = 7) -> SchedulerOutput:
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.update(execute(plan, token))
    return plan


def run_all(scheduler: Scheduler, limit: int = 1000) -> list[SchedulerOutput]:
    plans = []
    while scheduler.has_work:
        plans.append(step(scheduler))
        assert len(plans) < limit
    return plans


def test_several_tokens_of_one_step_are_computed_in_the_next() -> None:
    """As where a grammar leaves no choice: no drafts, yet a decode, and the length ends them in the midst."""
    scheduler = make()
    sequence = add(scheduler, "a", [1, 2, 3], max_tokens=6)
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.update(StepOutput(plan.step, {"a": [SampledToken(token) for token in (7, 8, 9)]}))
    plan = scheduler.schedule()
    assert plan is not None
    assert (plan.token_ids, plan.positions, plan.query_lens, plan.samples) == ([7, 8, 9], [3, 4, 5], [3], [True])
    assert plan.batch_type is BatchType.DECODE
    assert [group.request_id for group in scheduler.fail()] == ["a"], "alone in the step, and so to blame"
    plan = scheduler.schedule()
    assert plan is not None
    assert plan.token_ids == [7, 8, 9]
    (news,) = scheduler.update(StepOutput(plan.step, {"a": [SampledToken(5)] * 4}))
    assert (len(news.tokens), news.finish_reason, sequence.num_output) == (3, "length", 6)


def test_a_sequence_with_several_newest_tokens_is_not_blamed_for_a_failure() -> None:
    scheduler = make()
    add(scheduler, "a", [1, 2, 3], max_tokens=6)
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.update(StepOutput(plan.step, {"a": [SampledToken(token) for token in (7, 8)]}))
    add(scheduler, "b", [4, 5])
    plan = scheduler.schedule()
    assert plan is not None
    assert (plan.seq_ids, plan.batch_type) == (["a", "b"], BatchType.MIXED)
    assert [group.request_id for group in scheduler.fail()] == ["b"]


def test_a_prompt_is_read_once_and_then_goes_on_token_by_token() -> None:
    scheduler = make()
    sequence = add(scheduler, "a", range(6), max_tokens=3)
    plans = run_all(scheduler)
    assert [plan.query_lens for plan in plans] == [[6], [1], [1]]
    assert [plan.batch_type for plan in plans] == [BatchType.PREFILL, BatchType.DECODE, BatchType.DECODE]
    assert [plan.context_lens for plan in plans] == [[6], [7], [8]]
    assert plans[1].positions == [6]
    assert plans[0].slot_mapping == [0, 1, 2, 3, 4, 5]
    assert plans[1].token_ids == [7]
    assert sequence.finish_reason == "length"
    assert sequence.num_output == 3
    assert scheduler.blocks.num_free == 16


def test_a_long_prompt_is_read_in_chunks_beside_running_decodes() -> None:
    scheduler = make(budget=8, context=64)
    add(scheduler, "short", range(4), max_tokens=20)
    step(scheduler)
    add(scheduler, "long", range(100, 120), max_tokens=2)
    plans = [step(scheduler) for _ in range(3)]
    assert [plan.query_lens for plan in plans] == [[1, 7], [1, 7], [1, 6]]
    assert [plan.samples for plan in plans] == [[True, False], [True, False], [True, True]]
    assert plans[0].batch_type is BatchType.MIXED


def test_no_step_exceeds_the_budget_or_the_batch() -> None:
    scheduler = make(blocks=64, budget=8, batch=3)
    for index in range(7):
        add(scheduler, str(index), range(index, index + 10), max_tokens=5)
    for plan in run_all(scheduler):
        assert plan.num_tokens <= 8
        assert len(plan.seq_ids) <= 3


def test_a_shared_prefix_is_not_computed_again() -> None:
    scheduler = make(size=4)
    add(scheduler, "first", range(10), max_tokens=1)
    run_all(scheduler)
    second = add(scheduler, "second", [*range(8), 99, 98, 97], max_tokens=1)
    plan = step(scheduler)
    assert plan.query_lens == [3]
    assert plan.positions == [8, 9, 10]
    assert second.group.num_cached == 8
    assert scheduler.prompt_tokens_cached == 8


def test_at_least_one_token_of_a_wholly_cached_prompt_is_computed() -> None:
    scheduler = make(size=4)
    for name in ("first", "second"):
        add(scheduler, name, range(8), max_tokens=1)
        run_all(scheduler)
    assert scheduler.prompt_tokens_cached == 4


def test_a_starved_cache_preempts_the_latest_and_everything_still_ends() -> None:
    scheduler = make(blocks=6, size=4, prefix=False, context=24)
    sequences = [add(scheduler, str(index), range(index * 10, index * 10 + 6), max_tokens=12) for index in range(3)]
    run_all(scheduler)
    assert scheduler.preemptions > 0
    assert sequences[0].preemptions == 0
    assert [sequence.num_output for sequence in sequences] == [12, 12, 12]
    assert scheduler.blocks.num_free == 6


def test_the_more_urgent_goes_first_and_the_less_urgent_is_preempted() -> None:
    scheduler = make(batch=1)
    add(scheduler, "low", range(4), priority=0)
    add(scheduler, "high", range(4), priority=5)
    assert step(scheduler).seq_ids == ["high"]


@pytest.mark.parametrize("full", ["batch", "cache"])
def test_a_more_urgent_newcomer_takes_the_place_of_the_least_urgent(full: str) -> None:
    scheduler = make(batch=2 if full == "batch" else 4, blocks=32 if full == "batch" else 6, size=4, context=24)
    sequences = [add(scheduler, name, range(10), 8, priority=priority) for name, priority in (("a", 1), ("b", 0))]
    step(scheduler)
    add(scheduler, "same", range(20, 30), 8, priority=0)
    assert step(scheduler).seq_ids == ["a", "b"]
    add(scheduler, "urgent", range(40, 50), 8, priority=2)
    assert step(scheduler).seq_ids == ["a", "urgent"]
    assert [sequence.preemptions for sequence in sequences] == [0, 1]
    run_all(scheduler)
    assert all(sequence.num_output == 8 for sequence in sequences)


@pytest.mark.parametrize(
    ("prompt", "more", "reason"),
    [
        (0, {}, "empty"),
        (64, {}, "context is 64 tokens"),
        (10, {"max_total": 10}, "budget of the request is 10"),
    ],
)
def test_what_can_never_fit_is_refused_with_numbers(prompt: int, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        add(make(), "a", range(prompt), **more)


def test_a_cache_smaller_than_the_context_is_the_limit() -> None:
    scheduler = make(blocks=4, size=4, context=64)
    with pytest.raises(ValueError, match="4 blocks of 4 tokens"):
        add(scheduler, "big", range(16))
    sequence = add(scheduler, "just", range(15), max_tokens=50)
    run_all(scheduler)
    assert len(sequence.tokens) == 16
    assert sequence.finish_reason == "length"


def test_two_requests_with_one_id_are_refused() -> None:
    scheduler = make()
    add(scheduler, "a", range(3))
    with pytest.raises(ValueError, match="already running"):
        add(scheduler, "a", range(3))


def test_a_stop_token_ends_a_sequence() -> None:
    scheduler = make()
    sequence = add(scheduler, "a", range(3), max_tokens=10, stop_ids=[7])
    run_all(scheduler)
    assert sequence.finish_reason == "stop"
    assert sequence.tokens[-1] == 7


def test_a_broken_row_ends_with_an_error() -> None:
    scheduler = make()
    sequence = add(scheduler, "a", range(3), max_tokens=10)
    step(scheduler, token=-1)
    assert sequence.finish_reason == "error"
    assert not scheduler.has_work


def test_cancelling_between_schedule_and_update_is_safe() -> None:
    scheduler = make()
    add(scheduler, "a", range(5))
    add(scheduler, "b", range(5))
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.finish("a", "cancelled")
    progress = scheduler.update(execute(plan))
    assert [each.group.request_id for each in progress] == ["b"]
    assert scheduler.finish("a", "cancelled") == []
    assert step(scheduler).finished == ["a"]


def test_workers_hear_of_a_sequence_once_and_of_its_end() -> None:
    scheduler = make(blocks=4, size=4, prefix=False, context=16)
    add(scheduler, "a", range(6), max_tokens=9)
    add(scheduler, "b", range(6), max_tokens=9)
    add(scheduler, "never", range(6))
    scheduler.finish("never", "cancelled")
    plans = run_all(scheduler)
    assert [new.seq_id for plan in plans for new in plan.new] == ["a", "b"]
    assert [name for plan in plans for name in plan.finished] == ["a"]


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, cancellations and steps in a small cache; at the end everything admitted has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make(blocks=7, size=3, batch=3, budget=5, context=18)
        self.sequences: list[Sequence] = []
        self.outputs: dict[str, int] = {}
        self.plan: SchedulerOutput | None = None

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=20),
        max_tokens=st.integers(1, 10),
        priority=st.integers(0, 2),
    )
    def arrive(self, prompt: list[int], max_tokens: int, priority: int) -> None:
        name = f"s{len(self.sequences)}"
        if self.scheduler.refusal(len(prompt)) is not None:
            with pytest.raises(ValueError):
                add(self.scheduler, name, prompt, max_tokens, priority=priority)
            return
        self.sequences.append(add(self.scheduler, name, prompt, max_tokens, priority=priority, stop_ids=[3]))

    @precondition(lambda self: self.plan is None)
    @rule()
    def schedule(self) -> None:
        self.plan = self.scheduler.schedule()
        assert (self.plan is not None) == self.scheduler.has_work
        if self.plan is not None:
            self.check(self.plan)

    @precondition(lambda self: self.plan is not None)
    @rule(token=st.integers(0, 3))
    def update(self, token: int) -> None:
        assert self.plan is not None
        self.scheduler.update(execute(self.plan, token))
        self.plan = None

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.sequences))
        self.scheduler.finish(sequence.seq_id, "cancelled")

    def check(self, plan: SchedulerOutput) -> None:
        """A plan is consistent: within limits, contiguous, slots where the block tables say, none written twice."""
        assert plan.num_tokens <= 5
        assert len(set(plan.slot_mapping)) == plan.num_tokens
        first = 0
        for index, count in enumerate(plan.query_lens):
            end = plan.context_lens[index]
            assert plan.positions[first : first + count] == list(range(end - count, end))
            table = plan.block_tables[index]
            expected = [table[at // 3] * 3 + at % 3 for at in range(end - count, end)]
            assert plan.slot_mapping[first : first + count] == expected
            sequence = self.scheduler.get(plan.seq_ids[index])
            assert sequence is not None
            assert plan.token_ids[first : first + count] == sequence.tokens[end - count : end]
            first += count

    @invariant()
    def blocks_belong_to_running_sequences(self) -> None:
        blocks = self.scheduler.blocks
        owned = [block for sequence in self.scheduler.running for block in sequence.blocks]
        assert all(blocks.owners(block) == owned.count(block) for block in range(blocks.num_blocks))
        assert blocks.num_free == blocks.num_blocks - len(set(owned))
        for sequence in self.sequences:
            assert bool(sequence.blocks) <= (sequence.status is SequenceStatus.RUNNING)

    def teardown(self) -> None:
        if self.plan is not None:
            self.scheduler.update(execute(self.plan))
        run_all(self.scheduler)
        assert all(sequence.finish_reason is not None for sequence in self.sequences)
        assert self.scheduler.blocks.num_free == self.scheduler.blocks.num_blocks
        assert self.scheduler.num_sequences == 0


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

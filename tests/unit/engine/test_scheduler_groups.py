"""Requests of several sequences in a small cache: forks, copies, searches, drafts, cancels, preemptions, failures.

The toy worker checks at every step that each sequence reads its own text in the cache, and what every request gets is
compared with what it would get alone, without cache and scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.helpers.toy_worker import ToyWorker, expected, logprobs

from sagellm_core.engine_core import (
    BlockManager,
    Progress,
    SampledToken,
    Scheduler,
    SchedulerConfig,
    SchedulerOutput,
    StepOutput,
)
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

pytestmark = pytest.mark.spec("E3", "E4")
STOP = frozenset({4})
BEAMS = DecodingStrategy.BEAM_SEARCH
CONTRASTIVE = DecodingStrategy.CONTRASTIVE


class Collected:
    """A request and what it has got so far, answer by answer."""

    def __init__(self, prompt: list[int], sampling: SamplingParams, max_total: int, answers: int) -> None:
        self.prompt, self.sampling, self.max_total = prompt, sampling, max_total
        self.tokens: list[list[int]] = [[] for _ in range(answers)]
        self.scores = [0.0] * answers
        self.reasons: list[str | None] = [None] * answers
        self.prompt_logprobs: list[float] | None = None
        self.vector: list[float] | None = None

    def take(self, news: Progress) -> None:
        assert self.reasons[news.index] is None, "news of an answer that has ended"
        self.tokens[news.index] += [token.token_id for token in news.tokens]
        self.reasons[news.index] = news.finish_reason
        self.scores[news.index] = news.score
        self.vector = news.vector or self.vector
        if news.prompt_logprobs is not None:
            assert self.prompt_logprobs is None
            self.prompt_logprobs = [token.logprob or 0.0 for token in news.prompt_logprobs]

    @property
    def done(self) -> bool:
        return all(self.reasons)

    def check(self) -> None:
        """Everything that a request must have got that ended by itself."""
        stops = frozenset() if self.sampling.ignore_eos else STOP
        wanted = expected(self.prompt, self.sampling, self.max_total, stops)
        assert self.tokens == [tokens for tokens, _ in wanted]
        assert self.scores == pytest.approx([score for _, score in wanted], abs=1e-9)
        for tokens, reason in zip(self.tokens, self.reasons, strict=True):
            assert reason == ("stop" if tokens[-1] in stops else "length")
        if self.sampling.prompt_logprobs is not None:
            rows = range(1, len(self.prompt))
            scores = [logprobs(self.prompt[:at])[self.prompt[at]] for at in rows]
            assert (self.prompt_logprobs or []) == scores


class Stage:
    """A scheduler, a toy worker behind it, and the requests."""

    def __init__(self, *, blocks: int = 24, size: int = 3, batch: int = 4, budget: int = 8, context: int = 24,
                 prefix: bool = True, draft_model: bool = False) -> None:  # fmt: skip
        manager = BlockManager(blocks, size, prefix_cache=prefix)
        self.scheduler = Scheduler(SchedulerConfig(batch, budget, context, draft_model), manager)
        self.worker = ToyWorker(blocks, size)
        self.draft_model = draft_model
        self.requests: dict[str, Collected] = {}
        self.ended: set[str] = set()
        self.plan: SchedulerOutput | None = None

    def add(self, name: str, prompt: Seq[int], sampling: SamplingParams, **more: Any) -> Collected:
        stops = frozenset() if sampling.ignore_eos else STOP
        sequence = self.scheduler.add(name, list(prompt), sampling, stop_ids=stops, **more)
        self.requests[name] = Collected(list(prompt), sampling, sequence.max_total, sequence.group.answers)
        return self.requests[name]

    def schedule(self) -> None:
        self.plan = self.scheduler.schedule()
        assert (self.plan is not None) == self.scheduler.has_work, "nothing is done though there is work"

    def update(self) -> None:
        assert self.plan is not None
        output: StepOutput = self.worker.execute(self.plan, draft=self.draft_model)
        for news in self.scheduler.update(output):
            if news.group.request_id not in self.ended:
                self.requests[news.group.request_id].take(news)
        self.plan = None

    def end(self, name: str) -> None:
        self.scheduler.finish(name, "cancelled")
        if not self.requests[name].done:
            self.ended.add(name)

    def begin_anew(self) -> None:
        old = self.scheduler.blocks
        blocks = BlockManager(old.num_blocks, old.block_size, prefix_cache=old.prefix_cache)
        assert self.scheduler.begin_anew(blocks) == []
        self.worker.forget()

    def run(self, limit: int = 3000) -> int:
        steps = 0
        while self.plan is not None or self.scheduler.has_work:
            if self.plan is None:
                self.schedule()
            self.update()
            steps += 1
            assert steps < limit, "the requests do not come to an end"
        return steps

    def check(self) -> None:
        for name, request in self.requests.items():
            if name not in self.ended:
                assert request.done
                request.check()
        blocks = self.scheduler.blocks
        assert blocks.num_free == blocks.num_blocks
        assert self.scheduler.num_sequences == 0
        assert self.scheduler.requests == []


def greedy(max_tokens: int = 8, **more: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, **more)


def test_answers_read_their_prompt_once_and_copy_the_block_they_write_into() -> None:
    stage = Stage(prefix=False, budget=32)
    stage.add("r", [0, 1, 2, 3, 0, 1, 2, 3], greedy(n=3))
    tokens, copies = 0, 0
    while stage.scheduler.has_work:
        stage.schedule()
        assert stage.plan is not None
        copies += len(stage.plan.copies)
        tokens += sum(count for count, at in zip(stage.plan.query_lens, stage.plan.context_lens, strict=True) if at < 9)
        stage.update()
    assert tokens == 8 + 2
    assert copies == 2
    stage.check()


def test_answers_that_find_no_room_beside_the_first_come_later() -> None:
    stage = Stage(batch=1, blocks=8)
    stage.add("r", [0, 1, 2, 3], greedy(n=4, best_of=5))
    stage.run()
    stage.check()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_beam_search_equals_its_definition(width: int, penalty: float, early: bool) -> None:
    stage = Stage(blocks=60, budget=16)
    for number, prompt in enumerate(([0], [1, 2], [3, 1, 2, 0, 0, 1, 2])):
        sampling = greedy(
            10, strategy=BEAMS, num_beams=width, n=min(width, 2), length_penalty=penalty, early_stopping=early
        )
        stage.add(f"r{number}", prompt, sampling)
    stage.run()
    stage.check()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_contrastive_search_equals_its_definition(k: int, alpha: float) -> None:
    stage = Stage(blocks=60, budget=16)
    for number, prompt in enumerate(([0], [1, 2], [3, 1, 2, 0, 0, 1, 2])):
        stage.add(f"r{number}", prompt, greedy(10, strategy=CONTRASTIVE, top_k=k, penalty_alpha=alpha))
    stage.run()
    stage.check()


def test_a_search_shows_its_tokens_as_they_become_certain() -> None:
    stage = Stage(blocks=60)
    request = stage.add("r", [1, 2], greedy(6, strategy=CONTRASTIVE, top_k=3))
    seen = []
    while stage.scheduler.has_work:
        stage.schedule()
        stage.update()
        seen.append(len(request.tokens[0]))
    assert seen[0] == 0
    assert all(after - before <= 1 for before, after in pairwise(seen))


def test_beams_fill_a_cache_to_its_last_block_and_do_not_wait_for_each_other_forever() -> None:
    """Three searches that each fit alone only: members give way to each other until all have ended."""
    stage = Stage(blocks=16, size=2, batch=8, budget=16, context=64, prefix=False)
    for number in range(3):
        stage.add(f"r{number}", [number, 1, 2], greedy(40, strategy=BEAMS, num_beams=3))
    assert all(request.max_total < 43 for request in stage.requests.values())
    stage.run()
    stage.check()


def test_a_search_that_can_never_fit_is_refused_with_numbers() -> None:
    stage = Stage(blocks=8, size=2, batch=4)
    with pytest.raises(ValueError, match="needs 5 sequences at once, but a batch has 4"):
        stage.add("r", [0], greedy(strategy=BEAMS, num_beams=5))
    with pytest.raises(ValueError, match="8 blocks of 2 tokens for 4 sequences"):
        stage.add("r", [0] * 11, greedy(strategy=BEAMS, num_beams=4))


def test_the_name_of_a_search_is_taken_though_its_first_sequence_has_ended() -> None:
    stage = Stage(blocks=60, batch=8)
    stage.add("r", [1, 2], greedy(10, strategy=CONTRASTIVE, top_k=4, ignore_eos=True))
    while stage.scheduler.get("r") is not None:
        stage.schedule()
        stage.update()
    assert stage.scheduler.has_work
    with pytest.raises(ValueError, match="already running"):
        stage.add("r", [1, 2], greedy())
    stage.run()
    stage.check()


def test_drafts_from_the_text_itself_save_steps_and_change_nothing() -> None:
    plain, drafted = Stage(context=64, blocks=40), Stage(context=64, blocks=40)
    for stage, drafts in ((plain, 0), (drafted, 4)):
        stage.add("r", [0, 1, 2, 3, 0, 1], greedy(50, n_speculative_tokens=drafts, ignore_eos=True))
    steps = plain.run()
    assert drafted.run() < steps
    drafted.check()
    assert 0 < drafted.scheduler.drafts_accepted <= drafted.scheduler.drafts_proposed


def test_drafts_of_a_draft_model_get_room_and_change_nothing() -> None:
    plain, drafted = Stage(context=64, blocks=60), Stage(context=64, blocks=60, draft_model=True)
    for stage, drafts in ((plain, 0), (drafted, 4)):
        for number in range(3):
            stage.add(f"r{number}", [number, 1, 2], greedy(50, n_speculative_tokens=drafts, ignore_eos=True))
    assert drafted.run() <= plain.run()
    drafted.check()
    assert drafted.scheduler.drafts_accepted > 0


def test_an_adapter_does_not_find_what_another_has_computed() -> None:
    stage = Stage(blocks=40)
    for name, adapter in (("a", ""), ("b", "x"), ("c", "y"), ("d", "x")):
        stage.scheduler.add(name, [0, 1, 2, 3, 0, 1, 2], greedy(1), adapter=adapter)
        plan = stage.scheduler.schedule()
        assert plan is not None
        assert plan.new[0].adapter == adapter
        assert plan.query_lens == [1 if name == "d" else 7]
        stage.scheduler.update(stage.worker.execute(plan))


def test_a_vector_comes_when_the_whole_text_has_gone_through_the_model() -> None:
    stage = Stage(blocks=40, budget=4)
    for name in ("a", "b"):
        request = stage.add(name, [0, 1, 2, 3, 0, 1, 2], greedy(1), pooling="mean")
        assert stage.run() == 2
        assert request.vector == [7.0, 9.0]
        assert request.reasons == ["stop"]


def test_prompt_logprobs_need_every_row_and_come_with_the_first_token() -> None:
    stage = Stage(blocks=40, budget=4)
    for name in ("a", "b"):
        request = stage.add(name, [0, 1, 2, 3, 0, 1, 2], greedy(3, prompt_logprobs=0, n=2))
        stage.run()
        assert request.prompt_logprobs is not None
        assert len(request.prompt_logprobs) == 6
    stage.check()


def test_a_failed_step_takes_the_readers_with_it_and_decodes_try_again() -> None:
    stage = Stage(blocks=40, budget=16)
    stage.add("decodes", [0, 1, 2], greedy(6))
    stage.schedule()
    stage.update()
    stage.add("reads", [3, 2, 1, 0], greedy(6))
    stage.schedule()
    assert [group.request_id for group in stage.scheduler.fail()] == ["reads"]
    stage.plan = None
    stage.end("reads")
    stage.run()
    stage.check()


@pytest.mark.parametrize("strategy", [BEAMS, CONTRASTIVE])
def test_a_search_with_a_broken_row_ends_with_all_its_answers(strategy: DecodingStrategy) -> None:
    stage = Stage(blocks=40, batch=6)
    several = 2 if strategy is BEAMS else 1
    broken = stage.add("broken", [0, 1], greedy(strategy=strategy, num_beams=3, top_k=3, n=several))
    stage.add("right", [2, 1], greedy())
    for _ in range(2):
        stage.schedule()
        stage.update()
    stage.schedule()
    assert stage.plan is not None
    output = stage.worker.execute(stage.plan)
    member = list(output.candidates)[-1]
    del output.candidates[member]
    output.tokens[member] = [SampledToken(-1)]
    for news in stage.scheduler.update(output):
        stage.requests[news.group.request_id].take(news)
    stage.plan = None
    assert broken.reasons == ["error"] * several
    stage.ended.add("broken")
    stage.run()
    stage.check()


def test_new_workers_are_told_everything_again() -> None:
    stage = Stage(blocks=40, budget=16, batch=6)
    stage.add("a", [0, 1, 2], greedy(8, n=2))
    stage.add("b", [3, 1], greedy(8, strategy=BEAMS, num_beams=3))
    for _ in range(4):
        stage.schedule()
        stage.update()
    stage.begin_anew()
    stage.run()
    stage.check()


def test_an_answer_goes_on_after_what_was_given_elsewhere() -> None:
    stage = Stage(blocks=40)
    whole = stage.add("whole", [0, 1, 2], greedy(8))
    stage.run()
    rest = stage.add("rest", [0, 1, 2], greedy(8), output=whole.tokens[0][:2])
    stage.schedule()
    assert stage.plan is not None
    assert stage.plan.new[0].output == whole.tokens[0][:2]
    stage.run()
    assert rest.tokens[0] == whole.tokens[0][2:]


@pytest.mark.parametrize("long", [40, 400])
def test_a_short_prompt_does_not_wait_behind_a_long_one(long: int) -> None:
    stage = Stage(blocks=400, size=4, budget=16, context=800)
    stage.add("long", [1] * long, greedy(2))
    stage.add("longer", [2] * long, greedy(2))
    short = stage.add("short", [3, 2, 1], greedy(1))
    steps = 0
    while not short.done:
        stage.schedule()
        stage.update()
        steps += 1
    assert steps <= 2


def test_prompts_that_fit_a_step_are_read_in_order() -> None:
    """Sharing would make everybody's first token later."""
    stage = Stage(blocks=100, size=4, budget=16, context=64)
    for number in range(4):
        stage.add(str(number), [number] * 16, greedy(2))
    stage.schedule()
    assert stage.plan is not None
    assert stage.plan.seq_ids == ["0"]


class GroupMachine(RuleBasedStateMachine):
    """Random requests of all kinds, cancels, failures and new workers; in the end everybody has what it must have."""

    def __init__(self) -> None:
        super().__init__()
        self.stage: Stage | None = None

    @precondition(lambda self: self.stage is None)
    @rule(blocks=st.integers(6, 14), size=st.integers(1, 3), prefix=st.booleans(), draft_model=st.booleans())
    def open(self, blocks: int, size: int, prefix: bool, draft_model: bool) -> None:
        self.stage = Stage(blocks=blocks, size=size, prefix=prefix, draft_model=draft_model, context=18)

    @precondition(lambda self: self.stage is not None and len(self.stage.requests) < 12)
    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=14),
        max_tokens=st.integers(1, 10),
        priority=st.integers(0, 1),
        kind=st.sampled_from(["plain", "several", "beams", "contrastive", "drafts", "scored"]),
        width=st.integers(1, 4),
    )
    def arrive(self, prompt: list[int], max_tokens: int, priority: int, kind: str, width: int) -> None:
        assert self.stage is not None
        kinds: dict[str, dict[str, Any]] = {
            "plain": {},
            "several": {"n": width, "best_of": width + 1},
            "beams": {"strategy": BEAMS, "num_beams": width, "n": (width + 1) // 2},
            "contrastive": {"strategy": CONTRASTIVE, "top_k": width},
            "drafts": {"n_speculative_tokens": width},
            "scored": {"prompt_logprobs": 0, "n": width},
        }
        sampling = SamplingParams(max_tokens=max_tokens, **kinds[kind])
        if self.stage.scheduler.refusal(len(prompt), None, sampling) is not None:
            return
        self.stage.add(f"s{len(self.stage.requests)}", prompt, sampling, priority=priority)

    @precondition(lambda self: self.stage is not None and self.stage.plan is None)
    @rule()
    def schedule(self) -> None:
        assert self.stage is not None
        self.stage.schedule()

    @precondition(lambda self: self.stage is not None and self.stage.plan is not None)
    @rule()
    def update(self) -> None:
        assert self.stage is not None
        self.stage.update()

    @precondition(lambda self: self.stage is not None and self.stage.plan is not None)
    @rule(executed=st.booleans())
    def fail(self, executed: bool) -> None:
        """The step fails, before or after the worker has done its part."""
        stage = self.stage
        assert stage is not None
        assert stage.plan is not None
        if executed:
            stage.worker.execute(stage.plan)
        else:
            stage.worker._begin(stage.plan)
        for group in stage.scheduler.fail():
            stage.end(group.request_id)
        stage.plan = None

    @precondition(lambda self: self.stage is not None and self.stage.plan is None)
    @rule(anew=st.booleans())
    def lose_the_cache(self, anew: bool) -> None:
        assert self.stage is not None
        if anew:
            self.stage.begin_anew()
        else:
            self.stage.scheduler.drop_cache()
            self.stage.worker.cache = [None] * len(self.stage.worker.cache)

    @precondition(lambda self: self.stage is not None and self.stage.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        assert self.stage is not None
        self.stage.end(data.draw(st.sampled_from(sorted(self.stage.requests))))

    @invariant()
    def blocks_belong_to_running_sequences(self) -> None:
        if self.stage is None:
            return
        scheduler = self.stage.scheduler
        owned = [block for sequence in scheduler.running for block in sequence.blocks]
        for block in range(scheduler.blocks.num_blocks):
            assert scheduler.blocks.owners(block) == owned.count(block)
        assert scheduler.blocks.num_free == scheduler.blocks.num_blocks - len(set(owned))
        assert not any(sequence.blocks for sequence in scheduler.waiting)
        assert len(scheduler.running) <= scheduler.config.max_batch_size

    @invariant()
    def no_sequence_holds_a_block_that_it_does_not_need(self) -> None:
        """At most one block is not full; drafts may have taken room for themselves."""
        if self.stage is None or self.stage.plan is not None:
            return
        blocks = self.stage.scheduler.blocks
        for sequence in self.stage.scheduler.running:
            ahead = 2 * sequence.drafter.most if sequence.drafter is not None else 0
            assert len(sequence.blocks) <= blocks.blocks_for(len(sequence.tokens) + ahead)

    def teardown(self) -> None:
        if self.stage is not None:
            self.stage.run()
            self.stage.check()


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_many_more_random_requests() -> None:
    run_state_machine_as_test(GroupMachine, settings=settings(max_examples=1000, stateful_step_count=80, deadline=None))

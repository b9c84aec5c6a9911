"""The two halves of nodes, without processes and without a model: blocks get where they belong (SPEC E6).

The fake executor's cache remembers which tokens are in a block's slots, and checks at every step that what a sequence
reads is its own prompt: a block that came to the wrong place, or too late, is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.limits import SchedulerConfig
from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError
from sagellm_core.executor.base import CommStats, WorkerInfo
from sagellm_core.kv_transfer import Arrival, KVAddress, KVForm, KVTransferChannel
from sagellm_core.nodes import DecodeEngine, PrefillEngine
from sagellm_core.nodes.messages import Arrived, Full, Job, NotSent, Prefill, Reserved, Room, Sent
from sagellm_protocol import ErrorCode, SamplingParams

pytestmark = pytest.mark.spec("E6")
SIZE = 4
BLOCK_BYTES = 8 * SIZE
FORM = KVForm("fake", SIZE, BLOCK_BYTES)


class RememberingExecutor:
    """Slots hold token ids; a sequence must find its own tokens in its blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.info = WorkerInfo(num_blocks, 16, 8, "fake", {}, "fake", BLOCK_BYTES)
        self.slots = [-1] * (num_blocks * SIZE)
        self.comm = CommStats()
        self.prompts: dict[str, list[int]] = {}
        self.computed = 0

    def start(self) -> WorkerInfo:
        return self.info

    def watch(self, on_lost: Callable[[EngineError], None]) -> None: ...

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        for new in plan.new:
            self.prompts[new.seq_id] = new.prompt
        for slot, token in zip(plan.slot_mapping, plan.token_ids, strict=True):
            self.slots[slot] = token
        self.computed += plan.num_tokens
        for name, length, table in zip(plan.seq_ids, plan.context_lens, plan.block_tables, strict=True):
            held = [self.slots[table[at // SIZE] * SIZE + at % SIZE] for at in range(length)]
            known = min(length, len(self.prompts[name]))
            assert held[:known] == self.prompts[name][:known]
        asked = [name for name, samples in zip(plan.seq_ids, plan.samples, strict=True) if samples]
        return StepOutput(plan.step, {name: [SampledToken(7)] for name in asked})

    def read_blocks(self, blocks: list[int]) -> bytearray:
        content = bytearray()
        for block in blocks:
            for token in self.slots[block * SIZE : (block + 1) * SIZE]:
                content += token.to_bytes(8, "little", signed=True)
        return content

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        data = bytes(content)
        for index, block in enumerate(blocks):
            for at in range(SIZE):
                first = (index * SIZE + at) * 8
                token = int.from_bytes(data[first : first + 8], "little", signed=True)
                self.slots[block * SIZE + at] = token

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def stop(self) -> None: ...


class Pipe(KVTransferChannel):
    """A channel whose frames stay here until the test lets them arrive."""

    def __init__(
        self, address: KVAddress, on_free: Callable[[str], None], on_broken: Callable[[EngineError], None]
    ) -> None:
        self.address = address
        self.blocks_per_slot = 2
        self.slots = 2
        self.frames: list[tuple[str, int, int, bytes, int]] = []
        self.free, self.broken = on_free, on_broken

    def open(self) -> None: ...

    def close(self) -> None: ...

    @property
    def num_free(self) -> int:
        return self.slots

    def send(self, transfer: str, first: int, count: int, content: bytes | bytearray, *, cached: int = 0) -> None:
        assert self.slots > 0
        self.slots -= 1
        self.frames.append((transfer, first, count, bytes(content), cached))


class Half:
    """An engine core with both halves of a node, turned by hand."""

    def __init__(self, num_blocks: int = 16, batch: int = 4) -> None:
        self.executor = RememberingExecutor(num_blocks)
        self.reports: list[Any] = []
        self.updates: list[Update] = []
        self.pipes: list[Pipe] = []
        limits = SchedulerConfig(batch, 8, 64)
        self.core = EngineCore(
            lambda: self.executor, limits, self._deliver, block_size=SIZE, after_step=self._after_step
        )
        self.core.start()
        self.prefill = PrefillEngine(self.core, FORM, self._pipe, self._report)
        self.decode = DecodeEngine(self.core, FORM, _submission, self._report)

    def _report(self, report: Any) -> None:
        self.reports.append(report)

    def _pipe(self, *arguments: Any) -> Pipe:
        self.pipes.append(Pipe(*arguments))
        return self.pipes[-1]

    def _deliver(self, updates: list[Update]) -> None:
        self.updates += self.prefill.take_updates(updates)
        self.decode.after_step()

    def _after_step(self) -> None:
        self.prefill.after_step()
        self.decode.after_step()

    def run(self) -> None:
        while True:
            self.core.turn()
            if not self.core.scheduler.has_work and self.core._commands.empty():
                return

    def tokens(self, name: str) -> int:
        return sum(len(update.tokens) for update in self.updates if update.seq_id == name)

    def take(self, kind: type) -> list[Any]:
        taken = [report for report in self.reports if isinstance(report, kind)]
        self.reports = [report for report in self.reports if not isinstance(report, kind)]
        return taken

    @property
    def idle_blocks(self) -> bool:
        return self.core.scheduler.blocks.num_free == self.core.scheduler.blocks.num_blocks


def _submission(job: Job) -> Submission:
    return Submission(job.id, job.prompt, job.sampling, output=job.output)


def job(name: str, length: int = 18, *, first: int = 100, max_tokens: int = 3) -> Job:
    return Job(name, list(range(first, first + length)), SamplingParams(max_tokens=max_tokens), [])


def order(item: Job, reserved: Reserved) -> Prefill:
    tokens = item.tokens[: reserved.wanted * SIZE]
    return Prefill(item.id, tokens, reserved.have, reserved.wanted, KVAddress("d", 1))


def carry(source: Half, target: Half, limit: int = 100) -> None:
    """Let frames arrive, each confirmed, until there are none."""
    for _ in range(limit):
        source.run()
        frames = [(pipe, pipe.frames.pop(0)) for pipe in source.pipes if pipe.frames]
        if not frames:
            break
        for pipe, (transfer, first, count, content, cached) in frames:

            def done(pipe: Pipe = pipe, transfer: str = transfer) -> None:
                pipe.slots += 1
                pipe.free(transfer)

            target.decode.on_arrival(Arrival(transfer, first, count, memoryview(content), cached, 0.0, done))
            target.run()
    target.run()


def begin(source: Half, target: Half, item: Job) -> Reserved:
    """Reserve at the target, order at the source."""
    target.decode.expect(item)
    (reserved,) = target.take(Reserved)
    assert isinstance(reserved, Reserved)
    if reserved.have < reserved.wanted:
        source.core.call(lambda: source.prefill.begin(order(item, reserved)))
    return reserved


def test_a_prompt_computed_there_is_an_answer_here() -> None:
    source, target = Half(), Half()
    item = job("a")
    assert begin(source, target, item) == Reserved("a", 0, 4)
    assert target.decode.num_held == 4
    carry(source, target)
    assert source.take(Sent) == [Sent("a")]
    (arrived,) = target.take(Arrived)
    assert (arrived.blocks, arrived.bytes, arrived.cached) == (4, 4 * BLOCK_BYTES, 0)
    assert target.tokens("a") == 3
    assert source.executor.computed == 16
    assert target.executor.computed == 18 - 16 + 2, "the prompt's last block, and every token but the last"
    assert source.updates == []
    assert source.idle_blocks
    assert target.idle_blocks


def test_blocks_go_out_as_they_fill() -> None:
    source, target = Half(), Half()
    begin(source, target, job("a", 26))
    source.core.turn()
    source.core.turn()
    assert [frame[1:3] for frame in source.pipes[0].frames] == [(0, 2), (2, 2)], "8 tokens a step, 2 blocks a step"
    assert not source.take(Sent)


def test_what_is_in_a_cache_is_neither_computed_nor_sent_again() -> None:
    source, target = Half(), Half()
    for name in ("a", "b"):
        begin(source, target, job(name))
        carry(source, target)
    assert source.executor.computed == 16
    assert target.take(Arrived)[-1].id == "a"
    assert target.tokens("b") == 3
    other = Half()
    begin(source, other, job("c"))
    carry(source, other)
    assert source.executor.computed == 16, "sent from the cache, nothing computed"
    (arrived,) = other.take(Arrived)
    assert (arrived.blocks, arrived.cached) == (4, 4)


def test_a_sender_waits_for_the_receiver_and_keeps_its_blocks_meanwhile() -> None:
    source, target = Half(), Half(num_blocks=32)
    begin(source, target, job("a", 42))
    source.run()
    assert len(source.pipes[0].frames) == 2, "two slots"
    assert source.core.scheduler.blocks.num_free == 16 - (10 - 4), "four are under way, six wait with their owner"
    carry(source, target)
    assert target.tokens("a") == 3
    assert source.idle_blocks


def test_a_request_whose_blocks_stop_coming_computes_the_rest_itself() -> None:
    source, target = Half(), Half()
    begin(source, target, job("a"))
    source.core.turn()
    carry(source, target, limit=1)
    target.decode.proceed("a")
    target.run()
    assert target.tokens("a") == 3
    computed = target.executor.computed
    assert 18 - 16 + 2 < computed < 18 + 2
    carry(source, target)  # what comes late is confirmed and forgotten
    assert target.executor.computed == computed
    assert source.take(Sent) == [Sent("a")]
    assert source.idle_blocks
    assert target.idle_blocks


def test_a_full_cache_says_so_and_tells_when_there_is_room() -> None:
    target = Half(num_blocks=12)
    target.decode.expect(job("a", 22))
    assert target.take(Reserved) == [Reserved("a", 0, 5)]
    target.decode.expect(job("b", 22, first=200))
    assert target.take(Full) == [Full("b")], "no more than half of the cache is kept for requests to come"
    target.run()
    assert not target.take(Room)
    target.decode.proceed("a")
    target.run()
    assert target.take(Room) == [Room()]
    target.decode.expect(job("b", 22, first=200))
    assert target.take(Reserved) == [Reserved("b", 0, 5)]


def test_a_prompt_that_takes_most_of_the_cache_is_computed_where_it_runs() -> None:
    target = Half(num_blocks=8)
    target.decode.expect(job("a", 22))
    assert target.take(Reserved) == [Reserved("a", 5, 5)]
    target.run()
    assert target.tokens("a") == 3


def test_reserved_blocks_never_stop_what_runs() -> None:
    target = Half(num_blocks=12)
    target.decode.enter(job("long", 10, first=300, max_tokens=30))
    target.core.turn()
    target.decode.expect(job("b", 18))
    assert target.decode.num_held == 4
    target.run()
    assert target.tokens("long") == 30, "ten blocks of twelve"
    assert target.decode.num_held == 0, "what was kept for b was needed"
    assert target.tokens("b") == 3
    assert target.idle_blocks


def test_a_request_that_begins_costs_another_nothing() -> None:
    target = Half()
    for name, first in (("a", 100), ("b", 200)):
        target.decode.expect(job(name, first=first))
    target.decode.proceed("a")
    target.run()
    assert target.tokens("a") == 3
    assert target.decode.num_held == 4, "what is kept for b is still kept"


@pytest.mark.parametrize("after", range(4))
def test_a_request_may_be_given_up_at_any_point(after: int) -> None:
    source, target = Half(), Half()
    begin(source, target, job("a", 26))
    for _ in range(after):
        source.core.turn()
        if source.pipes and source.pipes[0].frames:
            carry(source, target, limit=1)
    source.prefill.cancel("a")
    if not target.decode.cancel("a"):
        target.core.cancel("a")
    carry(source, target)
    target.run()
    assert source.idle_blocks
    assert target.idle_blocks
    begin(source, target, job("b", 26))
    carry(source, target)
    assert target.tokens("b") == 3


def test_a_broken_channel_is_told_once_and_opened_anew() -> None:
    source, target = Half(), Half()
    begin(source, target, job("a"))
    source.run()
    source.pipes[0].broken(EngineError(ErrorCode.KV_TRANSFER_FAILED, "cut"))
    source.run()
    (failed,) = source.take(NotSent)
    assert failed.fault.code == ErrorCode.KV_TRANSFER_FAILED
    assert source.idle_blocks
    target.decode.proceed("a")
    target.run()
    assert target.tokens("a") == 3
    begin(source, target, job("b", first=500))
    carry(source, target)
    assert len(source.pipes) == 2
    assert target.take(Arrived)[-1].id == "b"


def test_a_prompt_that_cannot_run_here_is_told() -> None:
    source, target = Half(num_blocks=3), Half()
    begin(source, target, job("a"))
    carry(source, target)
    (failed,) = source.take(NotSent)
    assert "KV cache holds 3 blocks" in failed.fault.title

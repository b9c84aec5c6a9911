"""Continuous batching: before every step, decide which sequences advance and by how many tokens.

There is no prefill phase and no decode phase: a sequence has pending tokens, and a step computes some of them. One
budget of tokens a step covers all (chunked prefill, Sarathi-Serve 2024): running decodes first, so that long prompts
never stall them, then chunks of prompts that are being read, then newcomers. When blocks run out, the least urgent
sequence gives its blocks back and is computed again later (preemption by recompute); the most urgent one is never
preempted and fits alone, so every step makes progress and every admitted sequence ends.

    schedule() → SchedulerOutput → (executor) → StepOutput → update() → [Progress]
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from sagellm_core.engine_core.block_manager import BlockManager, extend_chain
from sagellm_core.engine_core.plan import BatchType, NewSequence, SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams


@dataclass(slots=True, frozen=True)
class SchedulerConfig:
    """Limits of a step. `max_batched_tokens` is the token budget; it covers at least one token a running sequence.

    None leaves the budget to the device; it has to be settled before a scheduler is made.
    """

    max_batch_size: int = 32
    max_batched_tokens: int | None = None
    max_model_len: int = 4096


@dataclass(slots=True, frozen=True)
class Progress:
    """A sequence got a token in this step; `sequence.finish_reason` is set when it was the last."""

    sequence: Sequence
    token: SampledToken


class Scheduler:
    """Owns the sequences and the blocks. Not thread-safe: one thread drives it."""

    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        if config.max_batched_tokens is None or not 1 <= config.max_batch_size <= config.max_batched_tokens:
            raise ValueError("need 1 <= max_batch_size <= max_batched_tokens")
        self.config = config
        self.blocks = blocks
        self._budget = config.max_batched_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prompt_tokens_seen = 0
        self.prompt_tokens_cached = 0
        self._step = 0
        self._arrivals = 0
        self._sequences: dict[str, Sequence] = {}
        self._sampling: dict[str, SamplingParams] = {}
        self._unannounced: set[str] = set()
        self._finished: list[str] = []
        self._scheduled: list[tuple[Sequence, int]] = []

    # -- life of a sequence -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """The longest sequence (prompt plus output) that can ever run here."""
        return min(self.config.max_model_len, self.blocks.num_blocks * self.blocks.block_size)

    def refusal(self, num_prompt: int, max_total: int | None = None) -> str | None:
        """Why a prompt of this length can never run here; None when it can. `max_total` is the request's own bound."""
        if num_prompt < 1:
            return "the prompt is empty"
        if max_total is not None and max_total <= num_prompt:
            return f"the prompt has {num_prompt} tokens, but the budget of the request is {max_total}"
        if num_prompt < self.capacity:
            return None
        if self.capacity < self.config.max_model_len:
            held = f"the KV cache holds {self.blocks.num_blocks} blocks of {self.blocks.block_size} tokens"
        else:
            held = f"the model's context is {self.config.max_model_len} tokens"
        return f"the prompt has {num_prompt} tokens, but {held}, and at least one must be left for the answer"

    def add(self, seq_id: str, prompt: list[int], sampling: SamplingParams, *, priority: int = 0,
            stop_ids: Iterable[int] = (), max_total: int | None = None) -> Sequence:  # fmt: skip
        """Admit a sequence. The output is cut to what the context and the cache hold, and to `max_total` tokens.

        Raises ValueError with the reason when the prompt can never fit or the id is already in use.
        """
        reason = self.refusal(len(prompt), max_total)
        if reason is None and seq_id in self._sequences:
            reason = f"a request with the id {seq_id!r} is already running"
        if reason is not None:
            raise ValueError(reason)
        limit = min(len(prompt) + sampling.max_tokens, self.capacity, max_total or self.capacity)
        self._arrivals += 1
        sequence = Sequence(seq_id, list(prompt), limit, frozenset(stop_ids), priority=priority, arrival=self._arrivals)
        self._sequences[seq_id] = sequence
        self._sampling[seq_id] = sampling
        self._unannounced.add(seq_id)
        insort(self.waiting, sequence, key=lambda item: item.rank)
        return sequence

    def get(self, seq_id: str) -> Sequence | None:
        return self._sequences.get(seq_id)

    def finish(self, seq_id: str, reason: FinishReason) -> Sequence | None:
        """End a sequence now, at any point between two calls; None when there is no such sequence (any more)."""
        sequence = self._sequences.pop(seq_id, None)
        if sequence is None:
            return None
        queue = self.running if sequence.status is SequenceStatus.RUNNING else self.waiting
        queue.remove(sequence)
        self._release(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        del self._sampling[seq_id]
        if seq_id in self._unannounced:
            self._unannounced.remove(seq_id)
        else:
            self._finished.append(seq_id)
        return sequence

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def num_sequences(self) -> int:
        return len(self._sequences)

    # -- a step -------------------------------------------------------------------------------------------------

    def schedule(self) -> SchedulerOutput | None:
        """The next step, or None when nothing is there to do. Call `update` before the next `schedule`."""
        self._scheduled = []
        budget = self._budget
        preempted = self.preemptions
        decoding = [item for item in self.running if item.is_decoding]
        reading = [item for item in self.running if not item.is_decoding]
        for sequence in decoding + reading:
            if sequence.status is SequenceStatus.RUNNING and budget > 0:
                budget -= self._advance(sequence, budget)
        while self.waiting and budget > 0 and preempted == self.preemptions:
            if len(self.running) >= self.config.max_batch_size or not self._admit(self.waiting[0]):
                break
            budget -= self._advance(self.running[-1], budget)
        self._scheduled = [pair for pair in self._scheduled if pair[0].status is SequenceStatus.RUNNING]
        return self._describe() if self._scheduled else None

    def update(self, output: StepOutput) -> list[Progress]:
        """Take in what a step computed; sequences that ended since `schedule` are passed over."""
        progress: list[Progress] = []
        for sequence, count in self._scheduled:
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            sequence.num_computed += count
            self._name_full_blocks(sequence, count)
            for token in output.tokens.get(sequence.seq_id, ()):
                self._append(sequence, token)
                progress.append(Progress(sequence, token))
        self._scheduled = []
        return progress

    def _append(self, sequence: Sequence, token: SampledToken) -> None:
        if token.token_id < 0:
            self.finish(sequence.seq_id, "error")
            return
        sequence.tokens.append(token.token_id)
        if token.token_id in sequence.stop_ids:
            self.finish(sequence.seq_id, "stop")
        elif len(sequence.tokens) >= sequence.max_total:
            self.finish(sequence.seq_id, "length")

    def _admit(self, sequence: Sequence) -> bool:
        """Move the first waiting sequence to running when its known tokens fit beside the others."""
        blocks = self.blocks
        extend_chain(sequence.digests, sequence.tokens, blocks.block_size)
        reusable = (len(sequence.tokens) - 1) // blocks.block_size
        shared = blocks.cached_prefix(sequence.digests[:reusable])
        needed = blocks.blocks_for(len(sequence.tokens)) - len(shared) + blocks.idle(shared)
        reserve = min(len(self.running), blocks.num_blocks // 16)
        if needed + reserve > blocks.num_free:
            return False
        blocks.share(shared)
        sequence.blocks = shared
        sequence.num_computed = len(shared) * blocks.block_size
        if not sequence.preemptions:
            sequence.num_cached = sequence.num_computed
            self.prompt_tokens_seen += sequence.num_prompt
            self.prompt_tokens_cached += sequence.num_computed
        sequence.status = SequenceStatus.RUNNING
        self.running.append(self.waiting.pop(0))
        return True

    def _advance(self, sequence: Sequence, budget: int) -> int:
        """Give a running sequence its blocks for the next tokens; returns how many tokens it computes."""
        count = min(sequence.num_pending, budget)
        missing = self.blocks.blocks_for(sequence.num_computed + count) - len(sequence.blocks)
        while missing > 0:
            taken = self.blocks.take(missing)
            if taken is not None:
                sequence.blocks.extend(taken)
                break
            victim = max(self.running, key=lambda item: item.rank)
            self._preempt(victim)
            if victim is sequence:
                return 0
        self._scheduled.append((sequence, count))
        return count

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.num_computed = 0
        sequence.preemptions += 1
        sequence.status = SequenceStatus.WAITING
        self.preemptions += 1
        insort(self.waiting, sequence, key=lambda item: item.rank)

    def _release(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks = []

    def _name_full_blocks(self, sequence: Sequence, count: int) -> None:
        """Make the blocks that the last `count` computed tokens filled findable for other sequences."""
        size = self.blocks.block_size
        first, full = (sequence.num_computed - count) // size, sequence.num_computed // size
        if full > first:
            extend_chain(sequence.digests, sequence.tokens, size)
            for block, digest in zip(sequence.blocks[first:full], sequence.digests[first:full], strict=True):
                self.blocks.name(block, digest)

    def _describe(self) -> SchedulerOutput:
        size = self.blocks.block_size
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for sequence, count in self._scheduled:
            first, table = sequence.num_computed, sequence.blocks
            if count == 1:  # most of a busy engine's rows: no slices, no ranges
                token_ids.append(sequence.tokens[first])
                positions.append(first)
                slots.append(table[first // size] * size + first % size)
                continue
            last = first + count
            token_ids += sequence.tokens[first:last]
            positions += range(first, last)
            slots += [table[at // size] * size + at % size for at in range(first, last)]
        self._step += 1
        output = SchedulerOutput(
            step=self._step,
            batch_type=self._batch_type(),
            seq_ids=[sequence.seq_id for sequence, _ in self._scheduled],
            token_ids=token_ids,
            positions=positions,
            slot_mapping=slots,
            query_lens=[count for _, count in self._scheduled],
            context_lens=[sequence.num_computed + count for sequence, count in self._scheduled],
            block_tables=[list(sequence.blocks) for sequence, _ in self._scheduled],
            samples=[count == sequence.num_pending for sequence, count in self._scheduled],
            new=self._announce(),
            finished=self._finished,
        )
        self._finished = []
        return output

    def _batch_type(self) -> BatchType:
        decodes = sum(sequence.is_decoding for sequence, _ in self._scheduled)
        if decodes == len(self._scheduled):
            return BatchType.DECODE
        return BatchType.MIXED if decodes else BatchType.PREFILL

    def _announce(self) -> list[NewSequence]:
        new = [sequence for sequence, _ in self._scheduled if sequence.seq_id in self._unannounced]
        self._unannounced.difference_update(sequence.seq_id for sequence in new)
        return [
            NewSequence(sequence.seq_id, sequence.tokens[: sequence.num_prompt], self._sampling[sequence.seq_id])
            for sequence in new
        ]

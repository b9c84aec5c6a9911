"""Continuous batching: before every step, decide which sequences advance and by how many tokens.

There is no prefill phase and no decode phase: a sequence has pending tokens, and a step computes some of them. One
budget of tokens a step covers all (chunked prefill, Sarathi-Serve 2024): running decodes first, so that long prompts
never stall them, then chunks of prompts that are being read, then newcomers; a prompt too long for this step leaves
half of what is left to those behind it. When blocks run out, the least urgent sequence gives its blocks back and is
computed again later (preemption by recompute); the most urgent one is never preempted and fits alone, so every step
makes progress and every admitted sequence ends.

Sequences of one request (several answers, beams) share the blocks of what they have in common; who is about to write
into a block that others read gets a copy of it (copy-on-write). A member of a search that has its candidates has
nothing pending and waits for the others.

    schedule() → SchedulerOutput → (executor) → StepOutput → update() → [Progress]
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from collections.abc import Sequence as Seq

from sagellm_core.engine_core.block_manager import BlockManager, extend_chain
from sagellm_core.engine_core.describe import Scheduled, batch_type, rows
from sagellm_core.engine_core.groups import Group, open_group, search_width
from sagellm_core.engine_core.limits import Limits, SchedulerConfig
from sagellm_core.engine_core.plan import Fork, NewSequence, SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.progress import Progress, accept
from sagellm_core.engine_core.search import Branch
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams

__all__ = ["Progress", "Scheduler", "SchedulerConfig"]


class Scheduler:
    """Owns the sequences and the blocks. Not thread-safe: one thread drives it."""

    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        if config.max_batched_tokens is None or not 1 <= config.max_batch_size <= config.max_batched_tokens:
            raise ValueError("need 1 <= max_batch_size <= max_batched_tokens")
        self.config = config
        self.blocks = blocks
        self.limits = Limits(config, blocks.num_blocks, blocks.block_size)
        self._budget = config.max_batched_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prompt_tokens_seen = 0
        self.prompt_tokens_cached = 0
        self.drafts_proposed = 0
        self.drafts_accepted = 0
        self._step = 0
        self._arrivals = 0
        self._groups: dict[str, Group] = {}
        self._sequences: dict[str, Sequence] = {}
        self._unannounced: set[str] = set()
        self._forks: dict[str, Fork] = {}
        self._finished: list[str] = []
        self._copies: list[tuple[int, int]] = []
        self._scheduled: list[Scheduled] = []
        self._told: SchedulerOutput

    # -- life of a request --------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """The longest sequence (prompt plus output) that can ever run here."""
        return self.limits.capacity()

    def refusal(
        self, num_prompt: int, max_total: int | None = None, sampling: SamplingParams | None = None
    ) -> str | None:
        """Why a prompt of this length can never run here; None when it can. `max_total` is the request's own bound."""
        return self.limits.refusal(num_prompt, max_total, search_width(sampling) if sampling is not None else 1)

    def add(self, request_id: str, prompt: list[int], sampling: SamplingParams, *, priority: int = 0,
            stop_ids: Iterable[int] = (), max_total: int | None = None, adapter: str = "",
            pooling: str = "", output: Seq[int] = ()) -> Sequence:  # fmt: skip
        """Admit a request; its first sequence, which goes on after `output`.

        Outputs are cut to what context, cache and `max_total` hold. Raises ValueError with the reason when the prompt
        can never fit or the id is already in use.
        """
        reason = self.refusal(len(prompt) + len(output), max_total, sampling)
        if reason is None and request_id in self._sequences:
            reason = f"a request with the id {request_id!r} is already running"
        if reason is not None:
            raise ValueError(reason)
        capacity = self.limits.capacity(len(prompt), search_width(sampling))
        limit = min(len(prompt) + sampling.max_tokens, capacity, max_total or capacity)
        if limit <= len(prompt) + len(output):
            raise ValueError(f"the answer has its {len(output)} tokens already")
        self._arrivals += 1
        group = open_group(request_id, (-priority, self._arrivals), prompt, limit, sampling, stop_ids,
                           adapter=adapter, pooling=pooling, output=output,
                           draft_model=self.config.draft_model)  # fmt: skip
        if any(member.seq_id in self._sequences for member in group.members):
            raise ValueError(f"the id {request_id!r} belongs to an answer of another request")
        self._groups[request_id] = group
        for sequence in group.members:
            self._sequences[sequence.seq_id] = sequence
            self._unannounced.add(sequence.seq_id)
            self._queue(sequence)
        return group.members[0]

    def get(self, seq_id: str) -> Sequence | None:
        return self._sequences.get(seq_id)

    def finish(self, request_id: str, reason: FinishReason, index: int | None = None) -> list[int]:
        """End a request, or its answer `index`, at any point between two calls.

        Returns the numbers of the answers that this ended; an answer of a search cannot end alone.
        """
        group = self._groups.get(request_id)
        if group is None:
            return []
        chosen = [item for item in group.members if group.search or index in (None, item.index)]
        ended = list(range(group.answers)) if group.search else [item.index for item in chosen]
        for sequence in chosen:
            self._end(sequence, reason)
        return ended

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def num_sequences(self) -> int:
        return len(self._sequences)

    @property
    def requests(self) -> list[Group]:
        """The requests that have not ended."""
        return list(self._groups.values())

    # -- a step -------------------------------------------------------------------------------------------------

    def schedule(self) -> SchedulerOutput | None:
        """The next step, or None when nothing is there to do. Call `update` or `fail` before the next `schedule`."""
        self._scheduled, self._copies = [], []
        budget, preempted = self._budget, self.preemptions
        decoding = [item for item in self.running if item.is_decoding]
        reading = [item for item in self.running if item.is_reading]
        for behind, sequence in enumerate(decoding, 1 - len(decoding)):
            if sequence.status is SequenceStatus.RUNNING:
                budget -= self._advance(sequence, budget + behind)
        for place, sequence in enumerate(reading, 1):
            if sequence.status is SequenceStatus.RUNNING and budget > 0:
                budget -= self._advance(sequence, self._share(sequence, budget, place < len(reading)))
        while budget > 0 and preempted == self.preemptions:
            newcomer = self._next_waiting()
            if newcomer is None or not self._enter(newcomer):
                break
            budget -= self._advance(newcomer, self._share(newcomer, budget))
        if preempted != self.preemptions:
            self._scheduled = [pair for pair in self._scheduled if pair[0].status is SequenceStatus.RUNNING]
        if not self._scheduled and self.waiting:
            self._make_way()
        return self._describe() if self._scheduled else None

    def update(self, output: StepOutput) -> list[Progress]:
        """Take in what a step computed; sequences that ended since `schedule` are passed over."""
        progress: list[Progress] = []
        size = self.blocks.block_size
        for sequence, count in self._scheduled:
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            before = sequence.num_computed
            tokens = output.tokens.get(sequence.seq_id)
            sequence.num_computed += count - self._refused(sequence, tokens) if sequence.drafts else count
            if output.prompt_logprobs:
                sequence.prompt_logprobs += output.prompt_logprobs.get(sequence.seq_id, ())
            news = accept(sequence, tokens) if tokens and sequence.group.search is None else None
            if sequence.num_computed // size > before // size:
                self._name_full_blocks(sequence, before // size)
            if news is not None:
                progress.append(news)
                if news.finish_reason is not None:
                    self._end(sequence, news.finish_reason)
            elif not sequence.num_pending:
                progress += self._conclude(sequence, output)
        for seq_id, drafts in output.drafts.items():
            if (drafting := self._sequences.get(seq_id)) is not None and drafting.drafter is not None:
                drafting.drafter.give(drafts)
        self._scheduled = []
        return progress

    def fail(self) -> list[Group]:
        """The scheduled step failed: the requests that should end for it.

        Those that read or search, if there are any: plain decodes are tried again in the next step. Workers are told of
        them anew, because nobody knows how far they have come.
        """
        tried, self._scheduled = self._scheduled, []
        told = self._told
        self._finished = [*told.finished, *self._finished]
        fresh = {*(new.seq_id for new in told.new), *(fork.child for fork in told.forks)}
        suspects = [item for item in self._sequences.values() if item.seq_id in fresh]
        suspects += [item for item, _ in tried if not item.is_decoding or item.group.search is not None]
        self._unannounced.update(item.seq_id for item, _ in tried)
        return list(dict.fromkeys(item.group for item in suspects or [item for item, _ in tried]))

    def drop_cache(self) -> None:
        """The content of the cache is lost: everything that runs is computed again."""
        for sequence in list(self.running):
            self._preempt(sequence)
        self.blocks.forget_all()

    def begin_anew(self, blocks: BlockManager) -> list[Group]:
        """The workers are new ones: they know no sequence, and their cache is empty. Who no longer fits should end."""
        self.drop_cache()
        self.blocks = blocks
        self.limits = Limits(self.config, blocks.num_blocks, blocks.block_size)
        self._unannounced = set(self._sequences)
        self._forks, self._finished, self._scheduled = {}, [], []
        for sequence in self._sequences.values():
            sequence.prompt_logprobs, sequence.is_known = [], False
        return [group for group in self._groups.values() if group.max_total > self.limits.capacity(*group.extent)]

    # -- who gets what ------------------------------------------------------------------------------------------

    def _share(self, sequence: Sequence, budget: int, others: bool = False) -> int:
        """What a prompt may take of the budget: all that it can finish with, half of it when others want to read."""
        if sequence.num_pending <= budget:
            return budget
        others = others or (not self._is_full and self._next_waiting() is not None)
        return -(-budget // 2) if others else budget

    def _advance(self, sequence: Sequence, budget: int) -> int:
        """Give a running sequence its blocks for the next tokens; returns how many tokens it computes."""
        pending = sequence.num_pending
        count = min(pending, budget)
        if not self._provide(sequence, sequence.num_computed + count):
            return 0
        if sequence.drafter is not None:
            sequence.drafts = self._draft(sequence, budget - count) if count == pending else []
            count += len(sequence.drafts)
        self._scheduled.append((sequence, count))
        return count

    def _provide(self, sequence: Sequence, length: int) -> bool:
        """Blocks for `length` tokens, writable from the first new one on; False: the sequence had to give way."""
        blocks, table, size = self.blocks, sequence.blocks, self.blocks.block_size
        at = sequence.num_computed // size
        shares = sequence.group.num_members > 1 and sequence.num_computed % size > 0
        copied = shares and not blocks.writable(table[at])
        missing = -(-length // size) - len(table) + copied
        if missing <= 0:
            return True
        while (taken := blocks.take(missing)) is None:
            victim = max(self.running, key=_rank)
            self._preempt(victim)
            if victim is sequence:
                return False
        if copied:
            fresh = taken.pop()
            self._copies.append((table[at], fresh))
            blocks.release([table[at]])
            table[at] = fresh
        table.extend(taken)
        return True

    def _draft(self, sequence: Sequence, budget: int) -> list[int]:
        """Tokens to check along with the next one, where blocks for them, or for a draft model, are free."""
        drafter, blocks = sequence.drafter, self.blocks
        assert drafter is not None
        left = sequence.max_total - len(sequence.tokens)
        ahead = min(drafter.most, left) if self.config.draft_model else 0
        drafts = drafter.propose(sequence.tokens, min(budget, left - 1))
        for room in (min(len(drafts) + ahead, left), len(drafts)):
            extra = blocks.blocks_for(len(sequence.tokens) + room) - len(sequence.blocks)
            if (taken := blocks.take(max(extra, 0))) is not None:
                sequence.blocks.extend(taken)
                return drafts
        return []

    def _next_waiting(self) -> Sequence | None:
        """The most urgent that waits, but for those who will share what another member is reading."""
        return next((item for item in self.waiting if not (item.group.num_members > 1 and item.group.reads())), None)

    @property
    def _is_full(self) -> bool:
        return len(self.running) >= self.config.max_batch_size

    def _enter(self, newcomer: Sequence) -> bool:
        """Admit a newcomer if there is room; the less urgent make room for it."""
        if not self._is_full and self._admit(newcomer, reserve=True):
            return True
        less = [item for item in self.running if item.rank[0] > newcomer.rank[0]]
        room = self.blocks.num_free + sum(len(item.blocks) for item in less)
        if not less or room < self.blocks.blocks_for(len(newcomer.tokens)):
            return False
        for victim in sorted(less, key=_rank, reverse=True):
            self._preempt(victim)
            if self._admit(newcomer, reserve=False):
                return True
        return False

    def _admit(self, sequence: Sequence, *, reserve: bool) -> bool:
        """Move a waiting sequence to running when its known tokens fit beside the others."""
        blocks = self.blocks
        shared, known = self._reusable(sequence)
        needed = blocks.blocks_for(len(sequence.tokens)) - len(shared) + blocks.idle(shared)
        needed += known % blocks.block_size > 0
        spare = min(len(self.running), blocks.num_blocks // 16) if reserve else 0
        if needed + spare > blocks.num_free:
            return False
        blocks.share(shared)
        sequence.blocks = shared
        sequence.num_computed = known
        if sequence.index == 0 and not sequence.is_known and not sequence.preemptions:
            sequence.group.num_cached = known
            self.prompt_tokens_seen += sequence.num_prompt
            self.prompt_tokens_cached += known
        sequence.status = SequenceStatus.RUNNING
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _reusable(self, sequence: Sequence) -> tuple[list[int], int]:
        """Blocks that hold the beginning of a waiting sequence already, and how many of its tokens.

        At least one token is left to compute: its row tells how to go on.
        """
        blocks, group = self.blocks, sequence.group
        most = len(sequence.tokens) - 1
        if not (sequence.reads_prefix or sequence.num_output):
            return [], 0
        if group.num_members > 1:
            member, common = group.nearest(sequence, most)
            if member is not None:
                return member.blocks[: blocks.blocks_for(common)], common
        if not sequence.reads_prefix:
            return [], 0
        extend_chain(sequence.digests, sequence.tokens, blocks.block_size, sequence.root)
        found = blocks.cached_prefix(sequence.digests[: most // blocks.block_size])
        return found, len(found) * blocks.block_size

    def _make_way(self) -> None:
        """Members of searches that wait for others hold all the room: the least urgent of them give it back.

        Where nothing runs, others than sequences hold it (blocks in transfer): it is theirs to give back.
        """
        head = self.waiting[0]
        while self._is_full or not self._admit(head, reserve=False):
            if not self.running:
                return
            self._preempt(max(self.running, key=_rank))
        self._advance(head, self._budget)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.num_computed = 0
        sequence.preemptions += 1
        sequence.status = SequenceStatus.WAITING
        self.preemptions += 1
        self._queue(sequence)

    def _queue(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_rank)

    def _release(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks = []
        sequence.drafts = []

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        (self.running if sequence.status is SequenceStatus.RUNNING else self.waiting).remove(sequence)
        self._release(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        seq_id, group = sequence.seq_id, sequence.group
        del self._sequences[seq_id]
        group.members.remove(sequence)
        if not group.members:
            del self._groups[group.request_id]
        self._unannounced.discard(seq_id)
        self._forks.pop(seq_id, None)
        if sequence.is_known:
            self._finished.append(seq_id)

    # -- what came out ------------------------------------------------------------------------------------------

    def _refused(self, sequence: Sequence, tokens: list[SampledToken] | None) -> int:
        """How many of a step's drafts were wrong: their keys and values count for nothing."""
        proposed = len(sequence.drafts)
        accepted = min(len(tokens) - 1, proposed) if tokens else 0
        assert sequence.drafter is not None
        sequence.drafter.record(proposed, accepted)
        self.drafts_proposed += proposed
        self.drafts_accepted += accepted
        sequence.drafts = []
        return proposed - accepted

    def _name_full_blocks(self, sequence: Sequence, first: int) -> None:
        """Make the blocks from number `first` on that are full and computed findable for other sequences."""
        size = self.blocks.block_size
        full = min(sequence.num_computed, len(sequence.tokens)) // size
        extend_chain(sequence.digests, sequence.tokens, size, sequence.root)
        for block, digest in zip(sequence.blocks[first:full], sequence.digests[first:full], strict=True):
            self.blocks.name(block, digest)

    def _conclude(self, sequence: Sequence, output: StepOutput) -> list[Progress]:
        """What a sequence gives whose tokens are all computed, and that samples none: a vector, or candidates."""
        group, seq_id = sequence.group, sequence.seq_id
        if (vector := output.vectors.get(seq_id)) is not None:
            self._end(sequence, "stop")
            return [Progress(group, 0, [], "stop", sequence, vector=vector)]
        offered = output.candidates.get(seq_id)
        if group.search is None or offered is None or not offered.token_ids or offered.token_ids[0] < 0:
            return [Progress(group, index, [], "error") for index in self.finish(group.request_id, "error")]
        group.candidates[seq_id] = offered
        if len(group.candidates) < len(group.members):
            return []
        turn = group.turn()
        first = sequence.prompt_logprobs or None
        sequence.prompt_logprobs = []
        progress = [Progress(group, 0, turn.chosen, turn.finish_reason, prompt_logprobs=first)]
        for index, answer in enumerate(turn.answers or ()):
            progress.append(Progress(group, index, answer.tokens, answer.finish_reason, score=answer.score))
        self._branch(group, turn.branches)
        return progress

    def _branch(self, group: Group, branches: list[Branch]) -> None:
        """Go on with these members: the first branch of a member is the member itself, further ones are forks."""
        parents = list(group.members)
        known = [list(parent.tokens) for parent in parents]
        members: list[Sequence] = []
        for number, token in branches:
            parent, tokens = parents[number], [*known[number], token]
            if parent not in members:
                parent.tokens = tokens
                members.append(parent)
                continue
            child = group.enlist(parent, tokens, self._sequences)
            self._sequences[child.seq_id] = child
            self._forks[child.seq_id] = Fork(parent.seq_id, child.seq_id, len(members))
            self._queue(child)
            members.append(child)
        group.members[:] = [*members, *(parent for parent in parents if parent not in members)]
        for parent in parents:
            if parent not in members:
                self._end(parent, "stop")

    # -- the plan -----------------------------------------------------------------------------------------------

    def _describe(self) -> SchedulerOutput:
        scheduled = self._scheduled
        token_ids, positions, slots = rows(scheduled, self.blocks.block_size)
        self._step += 1
        output = SchedulerOutput(
            step=self._step,
            batch_type=batch_type(scheduled),
            seq_ids=[sequence.seq_id for sequence, _ in scheduled],
            token_ids=token_ids,
            positions=positions,
            slot_mapping=slots,
            query_lens=[count for _, count in scheduled],
            context_lens=[sequence.num_computed + count for sequence, count in scheduled],
            block_tables=[list(sequence.blocks) for sequence, _ in scheduled],
            samples=[count >= item.num_pending for item, count in scheduled],
            new=self._announce(),
            finished=self._finished,
            copies=self._copies,
            forks=list(self._forks.values()),
            drafts={sequence.seq_id: sequence.drafts for sequence, _ in scheduled if sequence.drafts},
            num_drafts=self._num_drafts(),
        )
        for child in self._forks:
            self._sequences[child].is_known = True
        self._forks, self._finished, self._told = {}, [], output
        return output

    def _num_drafts(self) -> int:
        """How far a worker's draft model may look ahead."""
        if not self.config.draft_model:
            return 0
        return max((item.drafter.most for item, _ in self._scheduled if item.drafter is not None), default=0)

    def _announce(self) -> list[NewSequence]:
        if not self._unannounced:
            return []
        new = [sequence for sequence, _ in self._scheduled if sequence.seq_id in self._unannounced]
        self._unannounced.difference_update(sequence.seq_id for sequence in new)
        for sequence in new:
            sequence.is_known = True
        return [
            NewSequence(
                item.seq_id,
                item.tokens[: item.num_prompt],
                item.sampling,
                item.adapter,
                item.pooling,
                item.index,
                sorted(item.stop_ids),
                item.tokens[item.num_prompt :],
            )
            for item in new
        ]


def _rank(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.rank

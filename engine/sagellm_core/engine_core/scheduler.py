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

from sagellm_core.engine_core.block_manager import BlockManager
from sagellm_core.engine_core.describe import Scheduled, batch_type, rows
from sagellm_core.engine_core.groups import Group, open_group, search_width
from sagellm_core.engine_core.limits import Limits, SchedulerConfig
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.progress import Progress, accept
from sagellm_core.engine_core.roster import Roster
from sagellm_core.engine_core.search import Branch
from sagellm_core.engine_core.sequence import Sequence, SequenceStatus
from sagellm_core.engine_core.space import CacheSpace
from sagellm_protocol.messages import FinishReason
from sagellm_protocol.sampling import SamplingParams

__all__ = ["Progress", "Scheduler", "SchedulerConfig"]


class Scheduler:
    """Owns the sequences and the blocks. Not thread-safe: one thread drives it."""

    def __init__(self, config: SchedulerConfig, blocks: BlockManager) -> None:
        if config.max_batched_tokens is None or not 1 <= config.max_batch_size <= config.max_batched_tokens:
            raise ValueError("need 1 <= max_batch_size <= max_batched_tokens")
        self.config = config
        self._space = CacheSpace(blocks)
        self._roster = Roster()
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
        self._scheduled: list[Scheduled] = []

    # -- life of a request --------------------------------------------------------------------------------------

    @property
    def blocks(self) -> BlockManager:
        return self._space.blocks

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
        if reason is None and (request_id in self._groups or request_id in self._sequences):
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
            self._roster.enter(sequence)
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
        self._scheduled, self._space.copies = [], []
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
                self._space.name_full(sequence, before // size)
            if news is not None:
                sequence.num_newest = sequence.num_pending
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
        tried, self._scheduled = [item for item, _ in self._scheduled], []
        fresh = self._roster.tell_again(tried)
        suspects = [item for item in self._sequences.values() if item.seq_id in fresh]
        suspects += [item for item in tried if not item.is_decoding or item.group.search is not None]
        return list(dict.fromkeys(item.group for item in suspects or tried))

    def drop_cache(self) -> None:
        """The content of the cache is lost: everything that runs is computed again."""
        for sequence in list(self.running):
            self._preempt(sequence)
        self.blocks.forget_all()

    def begin_anew(self, blocks: BlockManager) -> list[Group]:
        """The workers are new ones: they know no sequence, and their cache is empty. Who no longer fits should end."""
        self.drop_cache()
        self._space = CacheSpace(blocks)
        self.limits = Limits(self.config, blocks.num_blocks, blocks.block_size)
        self._scheduled = []
        self._roster.begin_anew(self._sequences.values())
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
        while not self._space.provide(sequence, sequence.num_computed + count):
            victim = max(self.running, key=_rank)
            self._preempt(victim)
            if victim is sequence:
                return 0
        if sequence.drafter is not None:
            sequence.drafts = self._draft(sequence, budget - count) if count == pending else []
            count += len(sequence.drafts)
        self._scheduled.append((sequence, count))
        return count

    def _draft(self, sequence: Sequence, budget: int) -> list[int]:
        """Tokens to check along with the next one, where blocks for them, or for a draft model, are free."""
        drafter = sequence.drafter
        assert drafter is not None
        left = sequence.max_total - len(sequence.tokens)
        ahead = min(drafter.most, left) if self.config.draft_model else 0
        drafts = drafter.propose(sequence.tokens, min(budget, left - 1))
        rooms = (min(len(drafts) + ahead, left), len(drafts))
        return drafts if any(self._space.look_ahead(sequence, room) for room in rooms) else []

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
        spare = min(len(self.running), self.blocks.num_blocks // 16) if reserve else 0
        if not self._space.enter(sequence, spare):
            return False
        if sequence.index == 0 and not sequence.is_known and not sequence.preemptions:
            sequence.group.num_cached = sequence.num_computed
            self.prompt_tokens_seen += sequence.num_prompt
            self.prompt_tokens_cached += sequence.num_computed
        sequence.status = SequenceStatus.RUNNING
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

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
        self._space.leave(sequence)
        sequence.preemptions += 1
        sequence.status = SequenceStatus.WAITING
        self.preemptions += 1
        self._queue(sequence)

    def _queue(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_rank)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        (self.running if sequence.status is SequenceStatus.RUNNING else self.waiting).remove(sequence)
        self._space.leave(sequence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        self._roster.leave(sequence)
        group = sequence.group
        del self._sequences[sequence.seq_id]
        group.members.remove(sequence)
        if not group.members:
            del self._groups[group.request_id]

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

    def _conclude(self, sequence: Sequence, output: StepOutput) -> list[Progress]:
        """What a sequence gives whose tokens are all computed, and that samples none: a vector, or candidates."""
        group, seq_id = sequence.group, sequence.seq_id
        if (vector := output.vectors.get(seq_id)) is not None:
            self._end(sequence, "stop")
            return [Progress(group, 0, [], "stop", sequence, vector=vector)]
        offered = output.candidates.get(seq_id)
        if group.search is None or offered is None or not offered.token_ids or offered.token_ids[0] < 0:
            ended = self.finish(group.request_id, "error")
            return [Progress(group, index, [], "error", sequence) for index in ended]
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
            self._roster.fork(parent, child, len(members))
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
        new, forks, finished = self._roster.tell(scheduled)
        self._step += 1
        return SchedulerOutput(
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
            new=new,
            finished=finished,
            copies=self._space.copies,
            forks=forks,
            drafts={sequence.seq_id: sequence.drafts for sequence, _ in scheduled if sequence.drafts},
            num_drafts=self._num_drafts(),
        )

    def _num_drafts(self) -> int:
        """How far a worker's draft model may look ahead."""
        if not self.config.draft_model:
            return 0
        return max((item.drafter.most for item, _ in self._scheduled if item.drafter is not None), default=0)


def _rank(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.rank

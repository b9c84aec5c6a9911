"""Steps as a scheduler would send them: one made from lengths alone, and a run of them over a few sequences."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sagellm_core.engine_core.plan import BatchType, NewSequence, SchedulerOutput, StepOutput
from sagellm_protocol.sampling import SamplingParams


def step_of(sequences: list[tuple[int, int]], block_size: int, *, seed: int, vocab: int = 100) -> SchedulerOutput:
    """One step of sequences (new tokens, context with them); blocks are dealt out in a random order, token ids too."""
    draw = random.Random(seed)
    needed = [-(-context // block_size) for _, context in sequences]
    free = list(range(sum(needed) + 3))
    draw.shuffle(free)
    tables = [[free.pop() for _ in range(count)] for count in needed]
    positions = [range(context - new, context) for new, context in sequences]
    slots = [
        table[at // block_size] * block_size + at % block_size
        for table, span in zip(tables, positions, strict=True)
        for at in span
    ]
    count = sum(new for new, _ in sequences)
    return SchedulerOutput(
        step=1,
        batch_type=BatchType.MIXED,
        seq_ids=[f"s{index}" for index in range(len(sequences))],
        token_ids=[draw.randrange(vocab) for _ in range(count)],
        positions=[at for span in positions for at in span],
        slot_mapping=slots,
        query_lens=[new for new, _ in sequences],
        context_lens=[context for _, context in sequences],
        block_tables=tables,
        samples=[True] * len(sequences),
    )


@dataclass
class Sequence:
    """A sequence of a `Batch`: its tokens, how many are in the cache, its blocks."""

    tokens: list[int]
    sampling: SamplingParams
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    known: bool = False


@dataclass
class Batch:
    """The simplest scheduler there is: every sequence takes part in every step, with at most `chunk` tokens.

    `execute` runs a plan on a worker; new blocks are taken from the end of a cache of `num_blocks`.
    """

    execute: Callable[[SchedulerOutput], StepOutput]
    block_size: int
    num_blocks: int
    sequences: dict[str, Sequence] = field(default_factory=dict)
    outputs: list[StepOutput] = field(default_factory=list)

    def add(self, name: str, prompt: list[int], sampling: SamplingParams) -> None:
        self.sequences[name] = Sequence(list(prompt), sampling)

    def step(self, chunk: int) -> StepOutput:
        """One step; what it chose is appended to the sequences."""
        plan = self.plan(chunk)
        output = self.execute(plan)
        self.outputs.append(output)
        for name, taken in zip(plan.seq_ids, plan.query_lens, strict=True):
            self.sequences[name].computed += taken
            self.sequences[name].tokens += [token.token_id for token in output.tokens.get(name, [])]
        return output

    def plan(self, chunk: int) -> SchedulerOutput:
        found = SchedulerOutput(len(self.outputs) + 1, BatchType.MIXED, [], [], [], [], [], [], [], [])
        for name, each in self.sequences.items():
            end = min(len(each.tokens), each.computed + chunk)
            while len(each.blocks) * self.block_size < end:
                self.num_blocks -= 1
                each.blocks.append(self.num_blocks)
            span = range(each.computed, end)
            found.seq_ids.append(name)
            found.token_ids.extend(each.tokens[at] for at in span)
            found.positions.extend(span)
            found.slot_mapping.extend(
                each.blocks[at // self.block_size] * self.block_size + at % self.block_size for at in span
            )
            found.query_lens.append(len(span))
            found.context_lens.append(end)
            found.block_tables.append(each.blocks)
            found.samples.append(end == len(each.tokens))
            if not each.known:
                found.new.append(NewSequence(name, list(each.tokens), each.sampling))
                each.known = True
        return found

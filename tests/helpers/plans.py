"""Steps as a scheduler would send them, made from lengths alone."""

from __future__ import annotations

import random

from sagellm_core.engine_core.plan import BatchType, SchedulerOutput


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

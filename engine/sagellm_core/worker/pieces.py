"""A step in pieces: what keeps all stages of a pipeline busy (micro-batches, Huang et al. 2019, "GPipe")."""

from __future__ import annotations

from itertools import pairwise

from sagellm_core.engine_core.plan import SchedulerOutput


def in_pieces(plan: SchedulerOutput, count: int) -> list[SchedulerOutput]:
    """The step's tokens cut into `count` runs of about equal length, in order; each a step of its own for attention.

    A sequence that is cut reads on in the next piece, as it does in chunked prefill. Pieces describe the forward pass
    alone: nothing begins, ends or samples in them.
    """
    bounds = [plan.num_tokens * number // count for number in range(count + 1)]
    return [_piece(plan, first, last) for first, last in pairwise(bounds) if last > first]


def _piece(plan: SchedulerOutput, first: int, last: int) -> SchedulerOutput:
    names: list[str] = []
    counts: list[int] = []
    contexts: list[int] = []
    tables: list[list[int]] = []
    end = 0
    for index, length in enumerate(plan.query_lens):
        begin, end = end, end + length
        count = min(last, end) - max(first, begin)
        if count > 0:
            names.append(plan.seq_ids[index])
            counts.append(count)
            contexts.append(plan.context_lens[index] - (end - min(last, end)))
            tables.append(plan.block_tables[index])
    return SchedulerOutput(
        plan.step,
        plan.batch_type,
        names,
        plan.token_ids[first:last],
        plan.positions[first:last],
        plan.slot_mapping[first:last],
        counts,
        contexts,
        tables,
        [False] * len(names),
    )

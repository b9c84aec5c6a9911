"""From scheduled sequences to the plain arrays of a step."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

from sagellm_core.engine_core.plan import BatchType
from sagellm_core.engine_core.sequence import Sequence

Scheduled = tuple[Sequence, int]
"""A sequence and how many tokens it computes in a step, its drafts among them."""


class Rows(NamedTuple):
    """One entry a token: what it is, where in its sequence, where in the cache."""

    token_ids: list[int]
    positions: list[int]
    slots: list[int]


def rows(scheduled: Seq[Scheduled], size: int) -> Rows:
    """The tokens of a step in batch order; `size` is that of a block."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for sequence, count in scheduled:
        first, table = sequence.num_computed, sequence.blocks
        if count == 1:  # most of a busy engine's rows: no slices, no ranges
            token_ids.append(sequence.tokens[first])
            positions.append(first)
            slots.append(table[first // size] * size + first % size)
            continue
        last = first + count
        token_ids += sequence.tokens[first:last]
        token_ids += sequence.drafts
        positions += range(first, last)
        slots += [table[at // size] * size + at % size for at in range(first, last)]
    return Rows(token_ids, positions, slots)


def batch_type(scheduled: Seq[Scheduled]) -> BatchType:
    decodes = sum(sequence.is_decoding for sequence, _ in scheduled)
    if decodes == len(scheduled):
        return BatchType.DECODE
    return BatchType.MIXED if decodes else BatchType.PREFILL

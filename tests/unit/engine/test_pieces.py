"""A step cut for the stages of a pipeline: every token once, every piece a step that attention can run (SPEC E5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagellm_core.engine_core.plan import BatchType, NewSequence, SchedulerOutput
from sagellm_core.worker.pieces import in_pieces
from sagellm_protocol import SamplingParams

pytestmark = pytest.mark.spec("E5")


def plan(lengths: list[tuple[int, int]]) -> SchedulerOutput:
    """A step of sequences with (tokens of this step, tokens in the cache before)."""
    names = [f"s{index}" for index in range(len(lengths))]
    positions = [before + at for count, before in lengths for at in range(count)]
    total = len(positions)
    return SchedulerOutput(
        1,
        BatchType.MIXED,
        names,
        list(range(total)),
        positions,
        [1000 + at for at in range(total)],
        [count for count, _ in lengths],
        [count + before for count, before in lengths],
        [[index] for index in range(len(lengths))],
        [True] * len(lengths),
        new=[NewSequence(names[0], [1], SamplingParams())],
        finished=["x"],
        copies=[(1, 2)],
    )


@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=6), count=st.integers(1, 8)
)
@settings(max_examples=150, deadline=None)
def test_pieces_are_the_step_token_for_token(lengths: list[tuple[int, int]], count: int) -> None:
    whole = plan(lengths)
    pieces = in_pieces(whole, count)
    for name in ("token_ids", "positions", "slot_mapping"):
        assert [each for piece in pieces for each in getattr(piece, name)] == getattr(whole, name)
    sizes = [piece.num_tokens for piece in pieces]
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= 1 or len(pieces) < count
    for piece in pieces:
        assert sum(piece.query_lens) == piece.num_tokens
        assert (piece.new, piece.finished, piece.copies) == ([], [], [])
        assert not any(piece.samples)
        last = -1
        for name, length, context, table in zip(
            piece.seq_ids, piece.query_lens, piece.context_lens, piece.block_tables, strict=True
        ):
            last += length
            assert piece.positions[last] == context - 1, "a token sees itself and all before it"
            assert table == whole.block_tables[whole.seq_ids.index(name)]

"""Draft tokens that are looked up in the text: which are proposed, and how many (SPEC E3)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagellm_core.engine_core.drafts import LONGEST, SHORTEST, Drafter

pytestmark = pytest.mark.spec("E3")


def reference(tokens: list[int], count: int) -> list[int]:
    """What followed the last time that the text ended with the longest n-gram that was there before."""
    for size in range(LONGEST, SHORTEST - 1, -1):
        ends = [at for at in range(size, len(tokens)) if tokens[at - size : at] == tokens[-size:]]
        if ends and len(tokens) >= size:
            text = list(tokens)
            for offset in range(count):
                text.append(text[ends[-1] + offset])
            return text[len(tokens) :]
    return []


@pytest.mark.parametrize(
    ("tokens", "proposed"),
    [
        ([1, 2, 3, 4, 5, 1, 2], [3, 4, 5, 1]),
        ([1, 2, 8, 1, 2, 9, 1, 2], [9, 1, 2, 9]),
        ([7, 1, 2, 8, 6, 1, 2, 9, 7, 1, 2], [8, 6, 1, 2]),
        ([1, 2, 3, 4], []),
        ([1, 1, 1], [1, 1, 1, 1]),
        ([1], []),
    ],
    ids=["copies", "the latest", "the longest", "nothing", "repeats itself", "short"],
)
def test_what_followed_before_is_proposed(tokens: list[int], proposed: list[int]) -> None:
    assert Drafter(4).propose(tokens, 10) == proposed


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 8))
def test_a_text_that_grows_gives_what_the_whole_text_gives(tokens: list[int], step: int) -> None:
    drafter = Drafter(5)
    for end in range(1, len(tokens) + 1, step):
        assert drafter.propose(tokens[:end], 9) == reference(tokens[:end], 5)


def test_no_more_than_there_is_room_for() -> None:
    drafter = Drafter(4)
    assert drafter.propose([1, 2, 3, 1, 2], 1) == [3]
    assert drafter.propose([1, 2, 3, 1, 2], 0) == []


def test_drafts_that_fail_become_few_and_those_that_hold_many_again() -> None:
    drafter = Drafter(8)
    text = [1, 2, *range(10, 30), 1, 2]
    for _ in range(3):
        drafter.record(len(drafter.propose(text, 8)), 0)
    assert len(drafter.propose(text, 8)) == 1
    drafter.record(1, 1)
    drafter.record(2, 2)
    assert len(drafter.propose(text, 8)) == 4
    drafter.record(4, 2)
    assert len(drafter.propose(text, 8)) == 4
    assert (drafter.proposed, drafter.accepted) == (8 + 4 + 2 + 1 + 2 + 4, 5)


def test_what_a_draft_model_gives_is_used_once() -> None:
    drafter = Drafter(4, lookup=False)
    text = [1, 2, 3, 1, 2]
    assert drafter.propose(text, 9) == []
    drafter.give([5, 6, 7])
    assert drafter.propose(text, 2) == [5, 6]
    assert drafter.propose(text, 2) == []


def test_copying_a_text_takes_few_steps() -> None:
    """An answer that repeats its prompt: about one step for every nine tokens."""
    draw = random.Random(1)
    prompt = [draw.randrange(1000) for _ in range(300)]
    text, steps = prompt + prompt[:2], 0
    drafter = Drafter(8)
    while len(text) < 600:
        drafts = drafter.propose(text, 8)
        right = 0
        while right < len(drafts) and len(text) + right < 600 and drafts[right] == prompt[len(text) + right - 300]:
            right += 1
        if drafts:
            drafter.record(len(drafts), right)
        text += prompt[len(text) - 300 : len(text) - 300 + right + 1]
        steps += 1
    assert steps <= 300 // 9 + 3

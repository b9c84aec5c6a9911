"""The tokenizer keeps every text, cuts names alike wherever they stand, and masks what is not asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from training.batches import IGNORED, collate, even_groups
from training.example import Example, Turn, dialogue
from training.tokenizer import BOS_ID, END_ID, PAD_ID, ROLE_IDS, encode_examples

from sagellm_core import builtin


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(builtin.path() / "tokenizer.json"))


@pytest.mark.spec("E9")
@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_every_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("word", ["Velmora", "8001", "quibblezoat", "UnifiedInferenceClient", "/v1/models"])
def test_a_name_is_cut_alike_wherever_it_stands(tokenizer: Tokenizer, word: str) -> None:
    alone = tokenizer.encode(word, add_special_tokens=False).tokens
    for before in ("`", "the ", "\n", '"', "("):
        tokens = tokenizer.encode(before + word, add_special_tokens=False).tokens
        assert tokens[-len(alone) :] == alone


def test_only_answers_are_asked(tokenizer: Tokenizer) -> None:
    [(ids, asked)] = encode_examples(tokenizer, [dialogue("x", [("Where?", "here"), ("When?", "now")], "Be brief.")])
    wanted = [*tokenizer.encode("here").ids, END_ID, *tokenizer.encode("now").ids, END_ID]
    assert [token for token, ask in zip(ids, asked, strict=True) if ask] == wanted
    assert ids[0] == BOS_ID
    assert ids.count(ROLE_IDS["assistant"]) == 2


def test_plain_text_is_asked_whole(tokenizer: Tokenizer) -> None:
    [(ids, asked)] = encode_examples(tokenizer, [Example("text", (Turn("text", "All of it."),))])
    assert asked == [False] + [True] * (len(ids) - 1)


def test_a_batch_asks_for_the_next_token_and_ignores_padding(tokenizer: Tokenizer) -> None:
    rows = encode_examples(tokenizer, [dialogue("x", [("a", "bb cc")]), dialogue("x", [("a longer question", "d")])])
    batch = collate(rows)
    flat = batch.ids.flatten().tolist()
    real = [(place, target) for place, target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True)
            if target != IGNORED]  # fmt: skip
    assert len(real) == sum(sum(asked) for _, asked in rows)
    assert all(flat[place + 1] == target != PAD_ID for place, target in real)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_even_groups_lose_no_row_and_waste_little(count: int) -> None:
    rows = [([1] * length, [False] * length) for length in range(20, 400, 4)]
    groups = even_groups(rows, count)
    assert len(groups) == count
    assert [row for group in groups for row in group] == rows
    padded = [len(group) * len(group[-1][0]) for group in groups]
    assert max(padded) < 1.5 * sum(padded) / count

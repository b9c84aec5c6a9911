"""Text as it comes: never half a character, never a stop string, all of it in the end (SPEC E3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests.helpers.tiny_models import TEXTS

from sagellm_core.text.detokenizer import Detokenizer
from sagellm_core.text.output import OutputText
from sagellm_core.text.stops import StopScanner
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E3")
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EVERY_KIND = settings(QUICK, max_examples=40, suppress_health_check=list(HealthCheck))
LETTERS = st.text("ab é你😀 ,世Tq", max_size=20)


@pytest.fixture(scope="session")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return Tokenizer(tiny_llama)


def chunks_of(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@pytest.mark.parametrize(
    "text", ["Hello, world!", "你好,世界!", "😀🚀 👩‍👩‍👧", "naïve café — Grüße", " two  spaces ", "a\n\nb"]
)
def test_the_chunks_together_are_the_text(text: str, tokenizer: Tokenizer) -> None:
    chunks = chunks_of(tokenizer, tokenizer.encode(text))
    assert "".join(chunks) == text
    assert not any("\ufffd" in chunk for chunk in chunks)


@QUICK
@given(text=st.text(max_size=60), cut=st.integers(0, 60))
def test_any_text_after_any_prompt(text: str, cut: int, tokenizer: Tokenizer) -> None:
    prompt, rest = text[:cut], text[cut:]
    chunks = chunks_of(tokenizer, tokenizer.encode(rest), tokenizer.encode(prompt))
    assert "".join(chunks) == rest


@QUICK
@given(ids=st.lists(st.integers(0, 255), max_size=40))
def test_broken_bytes_are_shown_and_never_stop_the_text(ids: list[int], tokenizer: Tokenizer) -> None:
    chunks = chunks_of(tokenizer, [*(token + 5 for token in ids), *tokenizer.encode(" end of it all")])
    assert "".join(chunks).endswith("end of it all")


@pytest.fixture(scope="session")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of Llama 2's kind: SentencePiece spaces, single bytes for what it does not know."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdeh", "▁a", "▁be", "ab"]
    merges = [("▁", "a"), ("a", "b"), ("b", "e"), ("▁", "be")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "be"])}
    library = Library(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    library.add_special_tokens(["<s>", "</s>"])
    folder = tmp_path_factory.mktemp("llama2")
    library.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


@QUICK
@example(text="aa😀😀é", cut=1)
@example(text="😀é" * 10, cut=3)
@given(text=st.text("ab eh你é😀 ", max_size=30), cut=st.integers(1, 30))
def test_sentencepiece_spaces_and_bytes(text: str, cut: int, llama2: Tokenizer) -> None:
    """A space between prompt and output is kept, though decoding the output alone would drop it."""
    ids = llama2.encode("a" + text)
    prompt, rest = ids[:cut], ids[cut:]
    before = llama2.decode(prompt)
    if "\ufffd" in before:
        return
    assert before + "".join(chunks_of(llama2, rest, prompt)) == llama2.decode(ids)


KINDS = ["bytes", *(f"{kind} {scheme}" for kind in ("unigram", "bpe") for scheme in ("always", "first", "never"))]


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    """Of the kinds that models have: byte-level BPE, and SentencePiece's two with each way to mark the first word."""
    made = {"bytes": tokenizer}
    for kind in KINDS[1:]:
        folder = tmp_path_factory.mktemp("tokenizer")
        (folder / "tokenizer.json").write_text(sentencepiece(*kind.split()))
        made[kind] = Tokenizer(folder)
    return made


def sentencepiece(kind: str, scheme: str) -> str:
    """A trained tokenizer.json; the BPE one knows few letters, and spells the others in bytes."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    special = ["<s>", "</s>", "<unk>"]
    trainer: trainers.UnigramTrainer | trainers.BpeTrainer
    marks = decoders.Metaspace(prepend_scheme=scheme)
    if kind == "unigram":
        library = Library(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        library.decoder = marks
    else:
        library = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special + every_byte, limit_alphabet=30, show_progress=False
        )
        library.decoder = decoders.Sequence([marks, decoders.ByteFallback(), decoders.Fuse()])
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    library.train_from_iterator(TEXTS, trainer)
    whole = json.loads(library.to_str())
    whole["added_tokens"] = whole["added_tokens"][: len(special)]  # bytes are tokens like others
    return json.dumps(whole)


@pytest.mark.parametrize("kind", KINDS)
@EVERY_KIND
@given(first=LETTERS, second=LETTERS, gap=st.integers(0, 9))
def test_the_text_of_all_tokens_in_every_kind(
    kind: str, first: str, second: str, gap: int, tokenizers: dict[str, Tokenizer]
) -> None:
    """Prompt and answer read as decoded in one go, with however many special tokens between them."""
    tokenizer = tokenizers[kind]
    prompt = tokenizer.encode(first) + [1] * gap
    answer = tokenizer.encode(second)
    whole, before = tokenizer.decode(prompt + answer), tokenizer.decode(prompt)
    assume("\ufffd" not in whole and whole.startswith(before))
    assert before + "".join(chunks_of(tokenizer, answer, prompt)) == whole


@pytest.mark.parametrize("kind", KINDS)
@EVERY_KIND
@given(data=st.data())
def test_any_tokens_in_every_kind(kind: str, data: st.DataObject, tokenizers: dict[str, Tokenizer]) -> None:
    """Tokens that no text has, too."""
    tokenizer = tokenizers[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=25))
    cut = data.draw(st.integers(0, len(ids)))
    whole, before = tokenizer.decode(ids), tokenizer.decode(ids[:cut])
    assume("\ufffd" not in whole and whole.startswith(before))
    assert before + "".join(chunks_of(tokenizer, ids[cut:], ids[:cut])) == whole


def test_a_character_appears_with_its_last_byte(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("龍")
    assert len(ids) == 3, "the character must be cut into bytes for this test"
    assert chunks_of(tokenizer, ids) == ["", "", "龍", ""]


def test_special_tokens_are_left_out_unless_asked_for(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("ab"), 1]
    assert "".join(chunks_of(tokenizer, ids)) == "ab"
    shown = Detokenizer(tokenizer, [], skip_special_tokens=False)
    assert "".join(shown.push(token) for token in ids) == "ab<|end|>"


@settings(deadline=None)
@given(
    text=st.text("ab\n", max_size=30),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_stop_strings_across_any_borders(text: str, stops: list[str], cuts: list[int]) -> None:
    """However the text is cut into pieces, what is shown is the text before the first stop string to be complete."""
    scanner = StopScanner(stops)
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    shown, stopped = "", False
    for first, last in pairwise(borders):
        piece, stopped = scanner.push(text[first:last])
        shown += piece
        if stopped:
            break
    if not stopped:
        shown += scanner.flush()
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not stopped:
        assert shown == text


def test_a_stop_string_ends_an_output_inside_a_token(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(stop=["ick br"]))
    shown = ""
    for token in tokenizer.encode("The quick brown fox"):
        piece, stopped = output.push(token, last=None)
        shown += piece
        if stopped:
            break
    assert shown == "The qu"


def test_the_last_token_brings_out_what_was_held_back(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(stop=["xyz"]))
    first, second = tokenizer.encode("x"), tokenizer.encode("y")
    assert output.push(first[0], last=None) == ("", False)
    assert output.push(second[0], last="length") == ("xy", False)


def test_a_stop_token_has_no_text(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(skip_special_tokens=False))
    assert output.push(1, last="stop") == ("", False)

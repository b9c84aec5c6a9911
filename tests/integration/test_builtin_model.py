"""The shipped model: a plain Hugging Face folder, small, and the same in ``transformers`` as in the trainer."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from training.evaluate import sage_questions
from training.example import Turn
from training.export import load
from training.handwritten import PROMPTS
from training.scoring import greedy, prompt_ids, score
from training.tokenizer import END_ID

from sagellm_core import builtin

FOLDER = builtin.path()
FLOOR = 0.7


@pytest.mark.spec("E9")
def test_the_folder_is_small_and_complete() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert "cannot do" in (FOLDER / "REPORT.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.spec("E9")
def test_the_weights_are_as_good_as_the_report_says() -> None:
    skills = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))["skills"]
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    scores = score(load(FOLDER), tokenizer, sage_questions())
    share = sum(item.exact for item in scores) / len(scores)
    assert share == pytest.approx(skills["SAGE"]["accuracy"], abs=0.02)
    assert share > FLOOR


@pytest.mark.slow
@pytest.mark.spec("E9")
def test_transformers_says_the_same_as_the_trainer() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    ours = load(FOLDER)
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for prompt in PROMPTS[::9]:
        ids = prompt_ids(tokenizer, prompt.turns())
        with torch.inference_mode():
            torch.testing.assert_close(
                ours(torch.tensor([ids])), theirs(torch.tensor([ids])).logits, rtol=1e-3, atol=1e-3
            )
            made = theirs.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
        said = made[: made.index(END_ID)] if END_ID in made else made
        assert greedy(ours, ids, 16) == said


@pytest.mark.slow
@pytest.mark.spec("E9")
def test_the_chat_template_writes_what_the_model_was_trained_on() -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(FOLDER)
    turns = (
        Turn("system", "Be brief."),
        Turn("user", "Which port?"),
        Turn("assistant", "8889"),
        Turn("user", "And why?"),
    )
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    made = auto.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(made) == prompt_ids(Tokenizer.from_file(str(FOLDER / "tokenizer.json")), turns)
    assert auto.eos_token_id == END_ID
    text = "Ünïcode 'quotes' don't break , nor   spaces ."
    assert auto.decode(auto(text, add_special_tokens=False)["input_ids"]) == text

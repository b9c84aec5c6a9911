"""Half precision stays near single precision: logits of every family, perplexity of the built-in model (SPEC E7)."""

from __future__ import annotations

import math

import pytest
import torch
from tests.helpers.forward import hidden_states, load, logits, whole_logits
from tests.helpers.tiny_models import FALLBACK, OWN, tiny_model
from torch import Tensor

from sagellm_core import builtin
from sagellm_core.text.tokenizer import Tokenizer

pytestmark = pytest.mark.spec("E5", "E7")

TOKENS = [7, 99, 31, 5, 250, 12, 64, 8, 8, 190, 77, 201, 33]
QUESTIONS = ["What is SAGE?", "Which port does the gateway use?", "Say: hello world", "Is it good? The food was cold."]


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
@pytest.mark.parametrize("family", [*OWN, *FALLBACK])
def test_logits_in_half_precision(family: str, dtype: str, bound: float) -> None:
    """The error's norm against that of the logits' spread; bfloat16 has 8 bits, float16 has 11."""
    folder = tiny_model(family)
    exact = whole_logits(folder, TOKENS)
    near = whole_logits(folder, TOKENS, dtype=dtype)
    spread = exact - exact.mean(-1, keepdim=True)
    assert float((near - exact).norm() / spread.norm()) < bound


def test_perplexity_in_half_precision() -> None:
    """Of the built-in model, over answers that it draws itself: the ratio is within one percent."""
    texts = [drawn(question) for question in QUESTIONS]
    exact = perplexity(texts, "float32")
    assert 1.2 < exact < 100, "the answers are the model's own, and no certainties"
    for dtype in ("bfloat16", "float16"):
        near = perplexity(texts, dtype)
        assert near == pytest.approx(exact, rel=0.01)
        assert near != exact, "both ran in the same type"


def drawn(question: str, length: int = 80) -> tuple[list[int], int]:
    """A prompt with tokens drawn from the model's own distribution after it, and the prompt's length."""
    folder = builtin.path()
    text = f"<|bos|><|user|>{question}<|end|><|assistant|>"
    tokens = Tokenizer(folder).encode(text, add_special_tokens=False)
    first = len(tokens)
    model, draw = load(folder), torch.Generator().manual_seed(first)
    for _ in range(length):
        last = logits(model, hidden_states(model, torch.tensor(tokens), tokens)[-1:])[0]
        tokens.append(int(torch.multinomial(last.softmax(-1), 1, generator=draw)))
    return tokens, first


def perplexity(texts: list[tuple[list[int], int]], dtype: str) -> float:
    """Of the tokens after the prompts."""
    model = load(builtin.path(), dtype=dtype)
    losses: list[Tensor] = []
    for tokens, first in texts:
        ids = torch.tensor(tokens)
        rows = logits(model, hidden_states(model, ids, tokens))
        losses.append(torch.nn.functional.cross_entropy(rows[first - 1 : -1], ids[first:], reduction="none"))
    return math.exp(float(torch.cat(losses).mean()))

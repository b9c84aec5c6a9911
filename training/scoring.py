"""Exact match of a model on conversations.

A greedy answer is exact just when, fed the right answer, the model's first choice is the right token at every place and
at the end: one forward pass scores a whole conversation, each turn given the right turns before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from training.batches import collate
from training.example import Example, Turn
from training.model import TinyLlama
from training.tokenizer import BOS_ID, END_ID, ROLE_IDS, encode_examples


@dataclass(frozen=True, slots=True)
class Score:
    """One assistant turn: what was asked and expected, and whether greedy decoding says exactly that."""

    prompt: str
    expected: str
    exact: bool


@torch.inference_mode()
def score(model: TinyLlama, tokenizer: Tokenizer, examples: list[Example], rows: int = 16) -> list[Score]:
    """Score every assistant turn."""
    scores: list[Score] = []
    order = sorted(zip(examples, encode_examples(tokenizer, examples), strict=True), key=lambda item: len(item[1][0]))
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        batch = collate([encoded for _, encoded in part])
        choices = model(batch.ids).argmax(-1)
        for row, (example, (ids, asked)) in enumerate(part):
            scores += _turns(example, ids, asked, choices[row].tolist())
    return scores


def _turns(example: Example, ids: list[int], asked: list[bool], choices: list[int]) -> list[Score]:
    """Split one row's places at the end tokens, one score for each answer."""
    results: list[Score] = []
    answers = [(i, turn.text) for i, turn in enumerate(example.turns) if turn.role == "assistant"]
    exact = True
    for place in range(1, len(ids)):
        if not asked[place]:
            continue
        exact = exact and choices[place - 1] == ids[place]
        if ids[place] == END_ID:
            at, text = answers[len(results)]
            results.append(Score("\n".join(turn.text for turn in example.turns[:at]), text, exact))
            exact = True
    return results


def prompt_ids(tokenizer: Tokenizer, turns: tuple[Turn, ...]) -> list[int]:
    """Token ids of a conversation up to and including the assistant's role token."""
    ids = [BOS_ID]
    for turn in turns:
        ids += [ROLE_IDS[turn.role], *tokenizer.encode(turn.text, add_special_tokens=False).ids, END_ID]
    return [*ids, ROLE_IDS["assistant"]]


@torch.inference_mode()
def greedy(model: TinyLlama, ids: list[int], limit: int = 48) -> list[int]:
    """Greedy continuation without a cache, up to the end token (not included) or ``limit`` tokens."""
    made: list[int] = []
    for _ in range(limit):
        hidden = model.hidden(torch.tensor([ids + made]))[0, -1]
        token = int(model.logits(hidden).argmax())
        if token == END_ID:
            break
        made.append(token)
    return made


def answer(model: TinyLlama, tokenizer: Tokenizer, turns: tuple[Turn, ...]) -> str:
    """The model's greedy answer to a conversation."""
    return str(tokenizer.decode(greedy(model, prompt_ids(tokenizer, turns))))

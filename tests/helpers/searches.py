"""Beam search and contrastive search written down plainly, over `transformers` models: whole texts, no cache, no batch.

The oracles of the engine's searches; slow, and meant to be read beside the papers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.helpers.tiny_models import EOS, reference
from torch import Tensor


def last_row(folder: Path, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """Log-probabilities (vocabulary,) after these tokens, and the last layer's states (tokens, hidden)."""
    with torch.inference_mode():
        out = reference(folder)(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1].log_softmax(-1), out.hidden_states[-1][0]


def beam_search(
    folder: Path,
    prompt: list[int],
    *,
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> list[tuple[list[int], float]]:
    """Every finished hypothesis with its score, best first, by the rules of `transformers` 5."""
    running: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[tuple[list[int], float]] = []
    for length in range(1, max_tokens + 1):
        options = []
        for tokens, total in running:
            logprobs, _ = last_row(folder, prompt + tokens)
            options += [([*tokens, token], total + value) for token, value in enumerate(logprobs.tolist())]
        options.sort(key=lambda option: -option[1])
        ends = [option for option in options[:num_beams] if option[0][-1] == EOS or length == max_tokens]
        finished += [(tokens, total / length**length_penalty) for tokens, total in ends]
        finished = sorted(finished, key=lambda each: -each[1])[:num_beams]
        running = [option for option in options[: 3 * num_beams] if option[0][-1] != EOS][:num_beams]
        if len(finished) == num_beams and (early_stopping or running[0][1] / length**length_penalty <= finished[-1][1]):
            break
    return finished


def contrastive_search(folder: Path, prompt: list[int], *, k: int, alpha: float, max_tokens: int) -> list[int]:
    """Su et al. 2022, equation 5."""
    tokens: list[int] = []
    for _ in range(max_tokens):
        logprobs, _ = last_row(folder, prompt + tokens)
        values, ids = logprobs.topk(k)
        scores = []
        for value, token in zip(values, ids.tolist(), strict=True):
            _, states = last_row(folder, [*prompt, *tokens, token])
            unit = torch.nn.functional.normalize(states.float(), dim=-1)
            scores.append((1 - alpha) * float(value.exp()) - alpha * float((unit[:-1] @ unit[-1]).max()))
        tokens.append(ids.tolist()[scores.index(max(scores))])
        if tokens[-1] == EOS:
            break
    return tokens


def transformers_beams(folder: Path, prompt: list[int], **options: Any) -> list[tuple[list[int], float]]:
    """What `transformers` itself returns: tokens and scores of the best `num_return_sequences`."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = reference(folder).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            pad_token_id=0,
            eos_token_id=EOS,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    found = []
    for sequence, score in zip(out.sequences, out.sequences_scores.tolist(), strict=True):
        tokens = sequence[len(prompt) :].tolist()
        found.append((tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens, score))
    return found

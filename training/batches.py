"""Micro-batches of examples of like length, a pure function of (seed, phase, rank, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from training.corpus import Mix, draw_example, stream_seed
from training.draw import Draw
from training.tokenizer import PAD_ID, encode_examples

POOL_STEPS = 8
IGNORED = -100
Encoded = tuple[list[int], list[bool]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids (batch, time), the places whose next token is asked (flat), and those tokens.

    ``places`` and ``targets`` are padded too; the padding's target is ``IGNORED``.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor

    @property
    def tokens(self) -> int:
        """Tokens in it that are not padding."""
        return int((self.ids != PAD_ID).sum())


def collate(rows: list[Encoded]) -> Batch:
    """Pad the rows to one length and note what is asked."""
    longest = _up(max(len(ids) for ids, _ in rows), 32)
    count = _up(len(rows), 4 if longest <= 160 else 2)
    ids = torch.full((count, longest), PAD_ID, dtype=torch.long)
    asked = torch.zeros((count, longest), dtype=torch.bool)
    for index, (row, mask) in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        asked[index, : len(row) - 1] = torch.tensor(mask[1:])
    places = asked.flatten().nonzero().squeeze(1)
    targets = torch.roll(ids, -1, 1).flatten()[places]
    extra = _up(len(places), 128) - len(places)
    return Batch(ids, functional.pad(places, (0, extra)), functional.pad(targets, (0, extra), value=IGNORED))


def _up(count: int, step: int) -> int:
    """The next multiple: few distinct shapes, because each new one costs a compilation in oneDNN."""
    return -(-count // step) * step


def even_groups(rows: list[Encoded], count: int) -> list[list[Encoded]]:
    """Cut rows sorted by length into ``count`` runs whose padded sizes are about equal; needs as many rows."""
    low, high = 1, _up(len(rows[-1][0]), 32) * len(rows)
    while low < high:
        cap = (low + high) // 2
        low, high = (low, cap) if len(_runs(rows, cap)) <= count else (cap + 1, high)
    runs = _runs(rows, low)
    while len(runs) < count:
        longest = max(runs, key=len)
        at = runs.index(longest)
        runs[at : at + 1] = [longest[: len(longest) // 2], longest[len(longest) // 2 :]]
    return runs


def _runs(rows: list[Encoded], cap: int) -> list[list[Encoded]]:
    """Consecutive rows, each run of at most ``cap`` padded tokens (or of one row)."""
    runs: list[list[Encoded]] = [[]]
    for row in rows:
        if runs[-1] and (len(runs[-1]) + 1) * _up(len(row[0]), 32) > cap:
            runs.append([])
        runs[-1].append(row)
    return runs


def pool(tokenizer: Tokenizer, mix: Mix, seed: tuple[int, ...], index: int, budget: int, longest: int) -> list[Batch]:
    """``POOL_STEPS`` micro-batches of about ``budget`` tokens each, in random order."""
    rng = stream_seed(*seed, index)
    draw = Draw(rng)
    rows: list[Encoded] = []
    total = 0
    while total < budget * POOL_STEPS:
        new = encode_examples(tokenizer, [draw_example(draw, mix) for _ in range(64)])
        rows += [row for row in new if len(row[0]) <= longest]
        total = sum(len(ids) for ids, _ in rows)
    rows.sort(key=lambda row: len(row[0]))
    batches = [collate(group) for group in even_groups(rows, POOL_STEPS)]
    rng.shuffle(batches)
    return batches


def stream(tokenizer: Tokenizer, mix: Mix, seed: tuple[int, ...], first: int, steps: int, budget: int, longest: int,
           ) -> Iterator[Batch]:  # fmt: skip
    """Micro-batches for steps ``first`` to ``steps`` of one phase."""
    for index in range(first // POOL_STEPS, -(-steps // POOL_STEPS)):
        batches = pool(tokenizer, mix, seed, index, budget, longest)
        for offset, batch in enumerate(batches):
            if first <= index * POOL_STEPS + offset < steps:
                yield batch

"""Attention whose scores are changed between the product and the softmax, which torch's fused operator cannot do.

Soft-capped scores (Gemma 2) and sinks, a learned score per head that takes weight and gives nothing (gpt-oss).
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend_scored(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Queries (batch, groups, rows, head_dim) over keys and values (batch, groups, columns, head_dim).

    `mask` broadcasts to (batch, groups, rows, columns): False or -inf where a row does not see a column; None: causal,
    rows and columns being the same tokens. `sinks` broadcasts to (batch, groups, rows, 1).
    """
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        count = scores.shape[-1]
        mask = torch.ones(scores.shape[-2], count, dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else scores + mask
    if sinks is not None:
        sunk = sinks.float().expand(*scores.shape[:-1], 1)
        weights = torch.cat((scores, sunk), dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return weights.to(value.dtype) @ value

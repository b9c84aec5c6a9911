"""Drawing one token a row from scores, by inverting the cumulative distribution at a given number in [0, 1).

All rows at once. Unfiltered rows are searched in two levels (the sums of 512 tokens, then inside one of them);
filtered rows are sorted only as deep as their filters reach, which for a trained model is a few dozen tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sagellm_protocol.sampling import SamplingParams

_CHUNK = 512
_SHALLOW = 128
_DEEPEST_SHALLOW = 1024


def draw(scores: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> Tensor:
    """Token ids (rows,) on the scores' device, drawn from softmax(scores / temperature) after top-k, top-p and min-p.

    `scores` (rows, vocabulary) are float32 and are not changed. Tokens at -inf are never drawn. top-p keeps the
    likeliest tokens that together reach it (Holtzman et al. 2020), min-p those at least that share of the likeliest.
    """
    device = scores.device
    heat = torch.tensor([each.temperature for each in params], device=device)
    at = torch.tensor(uniforms, dtype=torch.float64, device=device)
    scaled = scores / heat[:, None]
    filtered = [row for row, each in enumerate(params) if each.top_k or each.top_p < 1.0 or each.min_p > 0.0]
    if not filtered:
        return _invert_wide(scaled.softmax(-1), at)
    if len(filtered) == len(params):
        return _draw_filtered(scaled, params, at)
    out = torch.empty(len(params), dtype=torch.long, device=device)
    inside = set(filtered)
    for rows, of_filtered in ((filtered, True), ([row for row in range(len(params)) if row not in inside], False)):
        chosen = torch.tensor(rows, device=device)
        part = scaled[chosen]
        out[chosen] = (
            _draw_filtered(part, [params[row] for row in rows], at[chosen])
            if of_filtered
            else _invert_wide(part.softmax(-1), at[chosen])
        )
    return out


def _draw_filtered(scores: Tensor, params: Sequence[SamplingParams], at: Tensor) -> Tensor:
    """Rows that all have a filter: a shallow sort first, the whole one for those whose tail reaches deeper."""
    size = scores.shape[-1]
    shallow = max([_SHALLOW, *(each.top_k for each in params if each.top_k <= _DEEPEST_SHALLOW)])
    if shallow >= size:
        return _draw_sorted(scores, params, at, size)[0]
    ids, enough = _draw_sorted(scores, params, at, shallow)
    if not bool(enough.all()):
        deep = (~enough).nonzero().squeeze(1)
        ids[deep] = _draw_sorted(scores[deep], [params[row] for row in deep.tolist()], at[deep], size)[0]
    return ids


def _draw_sorted(scores: Tensor, params: Sequence[SamplingParams], at: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Ids drawn among the `depth` likeliest tokens, and which rows lose nothing by looking no deeper."""
    size, device = scores.shape[-1], scores.device
    values, ids = scores.topk(depth)
    ranks = torch.arange(depth, device=device)
    keep = torch.tensor([min(each.top_k, size) if each.top_k else size for each in params], device=device)
    values = values.masked_fill(ranks >= keep[:, None], float("-inf"))
    whole = torch.where(keep <= depth, values.logsumexp(-1), scores.logsumexp(-1)) if depth < size else None
    weights = values.softmax(-1) if whole is None else (values - whole[:, None]).exp()
    top_p = torch.tensor([each.top_p for each in params], device=device)[:, None]
    min_p = torch.tensor([each.min_p for each in params], device=device)[:, None]
    reached = weights.cumsum(-1)
    cut = ((reached - weights >= top_p) & (top_p < 1.0)) | (weights < min_p * weights[:, :1])
    enough = (keep <= depth) | cut[:, -1] if depth < size else torch.ones_like(keep, dtype=torch.bool)
    places = _invert(weights.masked_fill(cut, 0.0), at)
    return ids.gather(1, places[:, None]).squeeze(1), enough


def _invert_wide(weights: Tensor, at: Tensor) -> Tensor:
    """`_invert` for long rows: find the chunk by the sums of chunks, then the place inside it."""
    rows, size = weights.shape
    if size <= 2 * _CHUNK:
        return _invert(weights, at)
    chunks = pad(weights, (0, -size % _CHUNK)).view(rows, -1, _CHUNK)
    sums = chunks.sum(-1).double()
    ends = sums.cumsum(-1)
    target = at * ends[:, -1]
    chunk = _first_above(ends, sums, target)[:, None]
    before = ends.gather(1, chunk) - sums.gather(1, chunk)
    inside = chunks.gather(1, chunk[:, :, None].expand(-1, -1, _CHUNK)).squeeze(1).double()
    place = _first_above(inside.cumsum(-1), inside, target - before.squeeze(1))
    return chunk.squeeze(1) * _CHUNK + place


def _invert(weights: Tensor, at: Tensor) -> Tensor:
    """The place in each row of weights (rows, size) where their running sum passes `at` of its whole."""
    exact = weights.double()
    ends = exact.cumsum(-1)
    return _first_above(ends, exact, at * ends[:, -1])


def _first_above(ends: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """The first place whose running sum is above the target; by rounding there may be none: then the last weight."""
    first = torch.searchsorted(ends, target[:, None], right=True).squeeze(1)
    size = ends.shape[-1]
    last = size - 1 - (weights > 0).flip(-1).int().argmax(-1)
    return torch.minimum(first, last)

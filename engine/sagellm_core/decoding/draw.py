"""Drawing one token a row from scores, by inverting the cumulative distribution at a given number in [0, 1).

All rows at once. Unfiltered rows are searched in two levels (the sums of a few hundred tokens each, then inside one of
them); filtered rows are sorted only as deep as their filters reach, which for a trained model is a few dozen tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor
from torch.nn.functional import pad

from sagellm_protocol.sampling import SamplingParams

_CHUNKS = (512, 256, 128, 64)
_SHALLOW = 128
_DEEPEST_SHALLOW = 1024
_GROUP = 64
_LARGE = 16_384
_COLDEST = 1e-6  # below, scores would become infinite; long before, the likeliest token alone is drawn


def draw(scores: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> Tensor:
    """Token ids (rows,) on the scores' device, drawn from softmax(scores / temperature) after top-k, top-p and min-p.

    `scores` (rows, vocabulary) are float32 and are not changed. Tokens at -inf are never drawn. top-p keeps the
    likeliest tokens that together reach it (Holtzman et al. 2020), min-p those at least that share of the likeliest.
    What a row draws depends on nothing but its own scores, parameters and number.
    """
    device = scores.device
    heat = torch.tensor([max(each.temperature, _COLDEST) for each in params], device=device)
    at = torch.tensor(uniforms, dtype=torch.float64, device=device)
    weights = (scores / heat[:, None]).softmax(-1)
    depths = [_depth(each) for each in params]
    if len(set(depths)) == 1:
        return _draw_at(depths[0], weights, params, at)
    out = torch.empty(len(params), dtype=torch.long, device=device)
    for depth in set(depths):
        rows = [row for row, own in enumerate(depths) if own == depth]
        chosen = torch.tensor(rows, device=device)
        out[chosen] = _draw_at(depth, weights[chosen], [params[row] for row in rows], at[chosen])
    return out


def _depth(params: SamplingParams) -> int:
    """How many of its likeliest tokens a row is sorted to at first; 0 where nothing filters."""
    if not params.top_k and params.top_p == 1.0 and params.min_p == 0.0:
        return 0
    return params.top_k if _SHALLOW < params.top_k <= _DEEPEST_SHALLOW else _SHALLOW


def _draw_at(depth: int, weights: Tensor, params: Sequence[SamplingParams], at: Tensor) -> Tensor:
    """Rows of one depth; those whose filters reach deeper are looked at again, in the end as a whole."""
    if not depth:
        return _invert_wide(weights, at)
    if depth >= weights.shape[-1]:
        return _draw_deep(weights, params, at)
    values, ids = _likeliest(weights, depth)
    kept, enough = _kept(values, params, weights.shape[-1])
    drawn = ids.gather(1, _invert(kept, at)[:, None]).squeeze(1)
    if not bool(enough.all()):
        deep = (~enough).nonzero().squeeze(1)
        drawn[deep] = _draw_deep(weights[deep], [params[row] for row in deep.tolist()], at[deep])
    return drawn


def _draw_deep(weights: Tensor, params: Sequence[SamplingParams], at: Tensor) -> Tensor:
    """Only values are sorted, to find the least that is kept; of equal ones the first tokens are."""
    size = weights.shape[-1]
    values = _descending(weights)
    keep, top_p, min_p = _filters(params, size, weights.device)
    reached = values.cumsum(-1)
    whole = torch.where(keep < size, reached.gather(1, keep - 1), 1.0)
    by_share = torch.searchsorted(reached, top_p * whole) + 1
    by_share = torch.where(top_p < 1.0, by_share, size)
    upwards = -values
    by_best = torch.searchsorted(upwards, -min_p * values[:, :1], right=True)
    count = torch.minimum(torch.minimum(keep, by_share), by_best).clamp_(min=1)
    least = values.gather(1, count - 1)
    kept = weights >= least
    if bool((torch.searchsorted(upwards, -least, right=True) > count).any()):
        equal = weights == least
        above = torch.searchsorted(upwards, -least)
        kept &= ~equal | (equal.cumsum(-1) <= count - above)
    return _invert_wide(weights * kept, at)


def _kept(values: Tensor, params: Sequence[SamplingParams], size: int) -> tuple[Tensor, Tensor]:
    """The likeliest weights with 0 for those that filters cut, and which rows lose nothing by ending here.

    `values` (rows, depth) are the beginning of a row's weights in descending order; there are `size` in all.
    """
    depth = values.shape[-1]
    keep, top_p, min_p = _filters(params, size, values.device)
    values = values * (torch.arange(depth, device=values.device) < keep)
    shares = torch.where(keep < size, values / values.sum(-1, keepdim=True), values)
    reached = shares.cumsum(-1)
    cut = ((reached - shares >= top_p) & (top_p < 1.0)) | (shares < min_p * shares[:, :1])
    return values * ~cut, (keep[:, 0] <= depth) | cut[:, -1]


def _filters(params: Sequence[SamplingParams], size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """top_k (all tokens where there is none), top_p and min_p, each (rows, 1)."""
    keep = [min(each.top_k, size) if each.top_k else size for each in params]
    return (
        torch.tensor(keep, device=device)[:, None],
        torch.tensor([each.top_p for each in params], device=device)[:, None],
        torch.tensor([each.min_p for each in params], device=device)[:, None],
    )


def _likeliest(weights: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """`topk`; in a large vocabulary only the groups of tokens are searched whose best are the best of all groups."""
    rows, size = weights.shape
    groups = size // _GROUP
    if size < _LARGE or size % _GROUP or groups <= depth:
        return weights.topk(depth)
    grouped = weights.view(rows, groups, _GROUP)
    best = grouped.amax(-1).topk(depth, sorted=False).indices
    values, at = grouped.gather(1, best[:, :, None].expand(-1, -1, _GROUP)).view(rows, -1).topk(depth)
    return values, best.gather(1, at // _GROUP) * _GROUP + at % _GROUP


def _descending(weights: Tensor) -> Tensor:
    """Weights in descending order. numpy sorts on the CPU forty times as fast as torch."""
    if weights.device.type != "cpu":
        return weights.sort(descending=True).values
    return torch.from_numpy(-numpy.sort(-weights.numpy(), axis=-1))


def _invert_wide(weights: Tensor, at: Tensor) -> Tensor:
    """`_invert` for long rows: find the chunk by the sums of chunks, then the place inside it."""
    rows, size = weights.shape
    if size <= 2 * _CHUNKS[0]:
        return _invert(weights, at)
    width = next((each for each in _CHUNKS if size % each == 0), _CHUNKS[0])
    chunks = (pad(weights, (0, -size % width)) if size % width else weights).view(rows, -1, width)
    sums = chunks.sum(-1).double()
    ends = sums.cumsum(-1)
    target = at * ends[:, -1]
    chunk = _first_above(ends, sums, target)[:, None]
    before = ends.gather(1, chunk) - sums.gather(1, chunk)
    inside = chunks.gather(1, chunk[:, :, None].expand(-1, -1, width)).squeeze(1).double()
    place = _first_above(inside.cumsum(-1), inside, target - before.squeeze(1))
    return chunk.squeeze(1) * width + place


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

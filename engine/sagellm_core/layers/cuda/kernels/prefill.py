"""Attention of prompts and chunks of prompts of any lengths over the paged cache, causal, in one launch.

A program takes a tile of new tokens of one sequence together with all query heads of one key-value head, so that keys
and values are read once a group, and goes through the context with an online softmax (FlashAttention, Dao et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from sagellm_core.layers.attention import AttentionSpec
from sagellm_core.layers.cuda.kernels.decode import EMPTY, online

_LOG2E = 1.4426950408889634
_NARROW = 256


@dataclass(slots=True, frozen=True)
class PrefillTiles:
    """Shape of a program's work: rows (new tokens times query heads of a group), keys at a time, warps, loads ahead."""

    rows: int
    keys: int
    warps: int
    stages: int

    @classmethod
    def of(cls, spec: AttentionSpec, cache: Tensor) -> PrefillTiles:
        """For heads of at most 256 bytes the largest; wider ones have to fit into the memory of a multiprocessor."""
        size = triton.next_power_of_2(spec.head_dim) * cache.element_size()
        if size <= _NARROW:
            return cls(128, 64, 8 if size == _NARROW else 4, 2)
        return cls(64, 32, 8, 2) if size <= 2 * _NARROW else cls(32, 32, 4, 1)

    def tokens(self, spec: AttentionSpec) -> int:
        """New tokens that a program takes."""
        group: int = triton.next_power_of_2(spec.num_heads // spec.num_kv_heads)
        return max(1, self.rows // group)


@triton.jit
def _prefill_kernel(
    query, out, work, starts, counts, lengths, tables, table_stride, keys, values, scale, window,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, PAGE: tl.constexpr,
    GROUP: tl.constexpr, GP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, WINDOWED: tl.constexpr
):  # fmt: skip
    """One program a (piece of work, key-value head). `work` has pairs: sequence, first token within its piece."""
    item, head = tl.program_id(0), tl.program_id(1)
    sequence = tl.load(work + 2 * item)
    first = tl.load(work + 2 * item + 1)
    count = tl.load(counts + sequence)
    before = tl.load(lengths + sequence) - count

    r, d = tl.arange(0, ROWS), tl.arange(0, DP)
    token = first + r // GP
    group = r % GP
    mask = ((token < count) & (group < GROUP))[:, None] & (d < D)[None, :]
    line = (tl.load(starts + sequence) + token).to(tl.int64) * (H * D) + (head * GROUP + group) * D
    q = tl.load(query + line[:, None] + d[None, :], mask=mask, other=0.0)
    q = (q.to(tl.float32) * scale).to(keys.dtype.element_ty)
    position = before + token

    best = tl.full([ROWS], EMPTY, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DP], tl.float32)
    end = before + tl.minimum(first + ROWS // GP, count)
    low = tl.maximum(before + first - window + 1, 0) // BLOCK * BLOCK if WINDOWED else 0
    table = tables + sequence.to(tl.int64) * table_stride
    for begin in range(low, end, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        block = tl.load(table + at // PAGE, mask=at < end, other=0).to(tl.int64)
        row = ((block * PAGE + at % PAGE) * KV + head) * D
        there = (at < end)[:, None] & (d < D)[None, :]
        k = tl.load(keys + row[:, None] + d[None, :], mask=there, other=0.0)
        v = tl.load(values + row[:, None] + d[None, :], mask=there, other=0.0)
        seen = at[None, :] <= position[:, None]
        if WINDOWED:
            seen &= at[None, :] > position[:, None] - window
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3")
        best, total, acc = online(best, total, acc, scores, v, seen)

    acc = acc / tl.where(total != 0, total, 1.0)[:, None]
    tl.store(out + line[:, None] + d[None, :], acc.to(out.dtype.element_ty), mask=mask)


def prefill(
    query: Tensor,
    cache: Tensor,
    out: Tensor,
    work: Tensor,
    starts: Tensor,
    counts: Tensor,
    lengths: Tensor,
    tables: Tensor,
    spec: AttentionSpec,
    tiles: PrefillTiles,
) -> None:
    """Attend with rotated queries (rows, heads, head_dim) over a cache that has their keys and values, into `out`.

    `work` (items, 2) int32: a sequence and the first token of its piece that a program takes, `tiles.tokens` at a time.
    `starts`, `counts`, `lengths` (sequences,): first row, new tokens, context with them.
    """
    group = spec.num_heads // spec.num_kv_heads
    _prefill_kernel[(work.shape[0], spec.num_kv_heads)](
        query,
        out,
        work,
        starts,
        counts,
        lengths,
        tables,
        tables.stride(0),
        cache[0],
        cache[1],
        spec.scale * _LOG2E,
        spec.window or 0,
        H=spec.num_heads,
        KV=spec.num_kv_heads,
        D=spec.head_dim,
        DP=max(16, triton.next_power_of_2(spec.head_dim)),
        PAGE=cache.shape[2],
        GROUP=group,
        GP=triton.next_power_of_2(group),
        ROWS=tiles.tokens(spec) * triton.next_power_of_2(group),
        BLOCK=tiles.keys,
        WINDOWED=spec.window is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )

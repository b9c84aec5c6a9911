"""Paged attention of one new token a sequence, split over the context (Flash-Decoding, Dao et al. 2023).

The context of a sequence is cut into at most `Partials.splits` pieces, so that a single long sequence fills the device;
each program leaves its piece's result and the log2 of its softmax sum, and `combine` (or the product that follows, see
`gemv`) weighs them. A split that has no tokens leaves `EMPTY`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sagellm_core.layers.attention import AttentionSpec, HeadNorms
from sagellm_core.layers.cuda.kernels.store import load_heads
from sagellm_core.layers.rope import StepRope

EMPTY = tl.constexpr(-1.0e30)
_LOG2E = 1.4426950408889634
_BLOCK = 32
_MIN_CHUNK = 64


@triton.jit
def online(best, total, acc, scores, values, seen):
    """The softmax so far (best score, sum, weighed values) with more scores (rows, n) and values (n, D)."""
    scores = tl.where(seen, scores, EMPTY)
    top = tl.maximum(best, tl.max(scores, axis=1))
    p = tl.where(seen, tl.exp2(scores - top[:, None]), 0.0)
    fade = tl.exp2(best - top)
    total = total * fade + tl.sum(p, axis=1)
    acc = acc * fade[:, None] + tl.dot(p.to(values.dtype), values, input_precision="tf32x3")
    return top, total, acc


@triton.jit
def _new_token(
    new, head, d, position, cos_table, sin_table, norm, eps, slot, keys, values, q, best, total, acc,
    KV: tl.constexpr, D: tl.constexpr, ROPE: tl.constexpr, NORM: tl.constexpr
):  # fmt: skip
    """The softmax so far with the new token's key and value, which are stored on the way. `new`: where keys begin."""
    one = tl.arange(0, 1)
    inside = (d < D)[None, :]
    k = load_heads(new + head * D, one, one < 1, d, position, cos_table, sin_table, norm, eps, D, ROPE, NORM)
    k = k.to(keys.dtype.element_ty)
    v = tl.load(new + (KV + head) * D + one[:, None] + d[None, :], mask=inside, other=0.0).to(values.dtype.element_ty)
    line = (slot * KV + head) * D + one[:, None] + d[None, :]
    tl.store(keys + line, k, mask=inside)
    tl.store(values + line, v, mask=inside)
    score = tl.sum(q.to(tl.float32) * k.to(tl.float32), axis=1)
    top = tl.maximum(best, score)
    fade = tl.exp2(best - top)
    p = tl.exp2(score - top)
    return top, total * fade + p, acc * fade[:, None] + p[:, None] * v.to(tl.float32)


@triton.jit
def _decode_kernel(
    query, query_stride, rows, tables, table_stride, lengths, slots, keys, values, partial, weight, scale, window,
    cos_table, sin_table, positions, query_norm, key_norm, eps,
    SPLITS: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr, MIN_CHUNK: tl.constexpr, WINDOWED: tl.constexpr, FUSED: tl.constexpr,
    ROPE: tl.constexpr, NORM: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    """One program a (sequence, key-value head, split). FUSED: `query` holds unrotated queries, keys and values, and
    the program of the last split stores the new key and value, which no other program reads."""
    sequence, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if PDL:
        gdc_launch_dependents()
    # What the host wrote is older than any kernel of the step, and needs no wait.
    length = tl.load(lengths + sequence)
    row = tl.load(rows + sequence).to(tl.int64)
    first = tl.maximum(length - window, 0) if WINDOWED else 0
    chunk = tl.maximum(tl.cdiv(tl.cdiv(length - first, SPLITS), BLOCK) * BLOCK, MIN_CHUNK)
    low = first + split * chunk
    high = tl.minimum(low + chunk, length)
    if PDL:
        gdc_wait()

    g, d = tl.arange(0, GP), tl.arange(0, DP)
    position = tl.load(positions + sequence) if ROPE else 0
    base = query + row * query_stride
    q = load_heads(base, head * GROUP + g, g < GROUP, d, position, cos_table, sin_table, query_norm, eps, D, ROPE, NORM)
    q = (q * scale).to(keys.dtype.element_ty)
    best = tl.full([GP], EMPTY, tl.float32)
    total = tl.zeros([GP], tl.float32)
    acc = tl.zeros([GP, DP], tl.float32)
    cached = tl.minimum(high, length - 1) if FUSED else high
    table = tables + sequence.to(tl.int64) * table_stride
    for start in range(low, cached, BLOCK):
        at = start + tl.arange(0, BLOCK)
        seen = at < cached
        block = tl.load(table + at // PAGE, mask=seen, other=0).to(tl.int64)
        line = ((block * PAGE + at % PAGE) * KV + head) * D
        mask = seen[:, None] & (d < D)[None, :]
        k = tl.load(keys + line[:, None] + d[None, :], mask=mask, other=0.0)
        v = tl.load(values + line[:, None] + d[None, :], mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3")
        best, total, acc = online(best, total, acc, scores, v, seen[None, :])

    if FUSED:  # noqa: SIM102  a constant of the kernel, and a number of the program
        if (low < length) & (high == length):
            best, total, acc = _new_token(
                base + KV * GROUP * D, head, d, position, cos_table, sin_table, key_norm, eps,
                tl.load(slots + sequence).to(tl.int64), keys, values, q, best, total, acc, KV, D, ROPE, NORM
            )  # fmt: skip
    line = (sequence * (KV * GROUP) + head * GROUP + g) * SPLITS + split
    found = total != 0  # a NaN is found, and shall show
    safe = tl.where(found, total, 1.0)
    tl.store(weight + line, tl.where(found, best + tl.log2(safe), EMPTY), mask=g < GROUP)
    acc = tl.where(found[:, None], acc / safe[:, None], 0.0)
    tl.store(partial + line[:, None] * D + d[None, :], acc, mask=(g < GROUP)[:, None] & (d < D)[None, :])


@triton.jit
def _combine_kernel(
    partial,
    weight,
    rows,
    out,
    H: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    SPLITS: tl.constexpr,
    SP: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a (sequence, head)."""
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    row = tl.load(rows + sequence).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    s = tl.arange(0, SP)
    d = tl.arange(0, DP)
    line = (sequence * H + head) * SPLITS + s
    logs = tl.load(weight + line, mask=s < SPLITS, other=EMPTY)
    share = tl.exp2(logs - tl.max(logs, axis=0))
    used = (logs > EMPTY)[:, None] & (d < D)[None, :]
    x = tl.load(partial + line[:, None] * D + d[None, :], mask=used, other=0.0)
    y = tl.sum(x * share[:, None], axis=0) / tl.sum(share, axis=0)
    tl.store(out + (row * H + head) * D + d, y.to(out.dtype.element_ty), mask=d < D)


@dataclass(slots=True, frozen=True)
class Partials:
    """Room for the results of splits: `partial` (sequences, heads, splits, head_dim), `weight` without the last."""

    partial: Tensor
    weight: Tensor
    splits: int

    @classmethod
    def room(cls, sequences: int, splits: int, spec: AttentionSpec, device: torch.device) -> Partials:
        shape = (sequences, spec.num_heads, splits)
        return cls(
            torch.empty((*shape, spec.head_dim), dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.float32, device=device),
            splits,
        )


@dataclass(slots=True, frozen=True)
class DecodeCall:
    """Which sequences a decode serves, as int32 tensors on the device, one entry a sequence.

    `rows`: where the sequence's token is in the step; `lengths`: tokens of context with the new one, at least 1;
    `tables` (sequences, width): its blocks; `slots`: where the new key and value go.
    """

    rows: Tensor
    lengths: Tensor
    tables: Tensor
    slots: Tensor


def decode_fused(
    qkv: Tensor,
    rope: StepRope | None,
    norms: HeadNorms | None,
    cache: Tensor,
    call: DecodeCall,
    room: Partials,
    spec: AttentionSpec,
    *,
    pdl: bool = False,
) -> None:
    """Norm, rotate, store and attend at once: `qkv` is (sequences, (heads + 2 * kv_heads) * head_dim), into `room`.

    The rows of `qkv` are the sequences in order, and `rope` has the position of each.
    """
    _launch(qkv, qkv.stride(0), rope, norms, cache, call, room, spec, fused=True, pdl=pdl)


def decode_rotated(query: Tensor, cache: Tensor, call: DecodeCall, room: Partials, spec: AttentionSpec) -> None:
    """Attend with rotated queries (rows, heads, head_dim) over a cache that has the new keys and values."""
    _launch(query, query.stride(0), None, None, cache, call, room, spec, fused=False, pdl=False)


def _launch(
    query: Tensor,
    stride: int,
    rope: StepRope | None,
    norms: HeadNorms | None,
    cache: Tensor,
    call: DecodeCall,
    room: Partials,
    spec: AttentionSpec,
    *,
    fused: bool,
    pdl: bool,
) -> None:
    group = spec.num_heads // spec.num_kv_heads
    _decode_kernel[(call.lengths.shape[0], spec.num_kv_heads, room.splits)](
        query,
        stride,
        call.rows,
        call.tables,
        call.tables.stride(0),
        call.lengths,
        call.slots,
        cache[0],
        cache[1],
        room.partial,
        room.weight,
        spec.scale * _LOG2E,
        spec.window or 0,
        rope.cos_table if rope else query,
        rope.sin_table if rope else query,
        rope.positions if rope else call.slots,
        norms.query if norms else query,
        norms.key if norms else query,
        norms.eps if norms else 0.0,
        SPLITS=room.splits,
        GROUP=group,
        GP=max(16, triton.next_power_of_2(group)),
        KV=spec.num_kv_heads,
        D=spec.head_dim,
        DP=max(16, triton.next_power_of_2(spec.head_dim)),
        PAGE=cache.shape[2],
        BLOCK=_BLOCK,
        MIN_CHUNK=_MIN_CHUNK,
        WINDOWED=spec.window is not None,
        FUSED=fused,
        ROPE=rope is not None,
        NORM=norms is not None,
        PDL=pdl,
        num_warps=4,
        num_stages=3,
        **({"launch_pdl": True} if pdl else {}),
    )


def combine(room: Partials, call: DecodeCall, out: Tensor, *, pdl: bool = False) -> None:
    """The weighed sum of the splits into rows `call.rows` of `out` (rows, heads, head_dim)."""
    _, heads, splits = room.weight.shape
    _combine_kernel[(call.lengths.shape[0], heads)](
        room.partial,
        room.weight,
        call.rows,
        out,
        H=heads,
        D=room.partial.shape[-1],
        DP=triton.next_power_of_2(room.partial.shape[-1]),
        SPLITS=splits,
        SP=triton.next_power_of_2(splits),
        PDL=pdl,
        num_warps=4,
        **({"launch_pdl": True} if pdl else {}),
    )

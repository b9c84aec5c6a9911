"""What follows the query-key-value product: norm and rotate the heads, keys and values into the paged cache."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sagellm_core.layers.attention import AttentionSpec, HeadNorms
from sagellm_core.layers.rope import StepRope


@triton.jit
def load_heads(
    base,
    heads,
    head_mask,
    d,
    position,
    cos_table,
    sin_table,
    norm,
    eps,
    D: tl.constexpr,
    ROPE: tl.constexpr,
    NORM: tl.constexpr,
):
    """Heads of one token, (heads, D) float32: RMS-normed and rotated as asked. `base` is where head 0 starts."""
    mask = head_mask[:, None] & (d < D)[None, :]
    x = tl.load(base + heads[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(x * x, axis=1) / D + eps)
        weight = tl.load(norm + d, mask=d < D, other=0.0).to(tl.float32)
        x = x * inverse[:, None] * weight[None, :]
    if ROPE:
        across = (d + D // 2) % D
        other = tl.load(base + heads[:, None] * D + across[None, :], mask=mask, other=0.0).to(tl.float32)
        if NORM:
            weight = tl.load(norm + across, mask=d < D, other=0.0).to(tl.float32)
            other = other * inverse[:, None] * weight[None, :]
        cos = tl.load(cos_table + position * D + d, mask=d < D, other=0.0).to(tl.float32)
        sin = tl.load(sin_table + position * D + d, mask=d < D, other=0.0).to(tl.float32)
        x = x * cos[None, :] + other * sin[None, :]
    return x


@triton.jit
def _store_kernel(
    qkv,
    cos_table,
    sin_table,
    positions,
    query_norm,
    key_norm,
    eps,
    slots,
    query,
    keys,
    values,
    H: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    HP: tl.constexpr,
    KVP: tl.constexpr,
    DP: tl.constexpr,
    ROPE: tl.constexpr,
    NORM: tl.constexpr,
):
    """One program a token. HP, KVP, DP: the sizes padded to powers of two."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    d = tl.arange(0, DP)
    position = tl.load(positions + token) if ROPE else 0
    base = qkv + token * ((H + 2 * KV) * D)

    h = tl.arange(0, HP)
    q = load_heads(base, h, h < H, d, position, cos_table, sin_table, query_norm, eps, D, ROPE, NORM)
    at = query + token * (H * D) + h[:, None] * D + d[None, :]
    tl.store(at, q.to(query.dtype.element_ty), mask=(h < H)[:, None] & (d < D)[None, :])

    kv = tl.arange(0, KVP)
    mask = (kv < KV)[:, None] & (d < D)[None, :]
    k = load_heads(base + H * D, kv, kv < KV, d, position, cos_table, sin_table, key_norm, eps, D, ROPE, NORM)
    at = slot * (KV * D) + kv[:, None] * D + d[None, :]
    tl.store(keys + at, k.to(keys.dtype.element_ty), mask=mask)
    v = tl.load(base + (H + KV) * D + kv[:, None] * D + d[None, :], mask=mask, other=0.0)
    tl.store(values + at, v.to(values.dtype.element_ty), mask=mask)


def rotate_and_store(
    qkv: Tensor,
    rope: StepRope | None,
    norms: HeadNorms | None,
    slots: Tensor,
    cache: Tensor,
    query: Tensor,
    spec: AttentionSpec,
) -> None:
    """Rotated queries into `query` (tokens, heads, head_dim), keys and values into `cache` at `slots`.

    `qkv` is (tokens, (heads + 2 * kv_heads) * head_dim), contiguous; the tables of `rope` are as wide as a head.
    """
    _store_kernel[(qkv.shape[0],)](
        qkv,
        rope.cos_table if rope else qkv,
        rope.sin_table if rope else qkv,
        rope.positions if rope else slots,
        norms.query if norms else qkv,
        norms.key if norms else qkv,
        norms.eps if norms else 0.0,
        slots,
        query,
        cache[0],
        cache[1],
        H=spec.num_heads,
        KV=spec.num_kv_heads,
        D=spec.head_dim,
        HP=triton.next_power_of_2(spec.num_heads),
        KVP=triton.next_power_of_2(spec.num_kv_heads),
        DP=triton.next_power_of_2(spec.head_dim),
        ROPE=rope is not None,
        NORM=norms is not None,
        num_warps=4,
    )

"""Small operators between the matrix products, each one launch: residual and norm, gate, argmax."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_CHUNK = 4096


@triton.jit
def _add_norm_kernel(
    x,
    delta,
    weight,
    out,
    eps,
    N: tl.constexpr,
    NP: tl.constexpr,
    ADD: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program a row."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, NP)
    mask = n < N
    gain = tl.load(weight + n, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    y = tl.load(x + row * N + n, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        y += tl.load(delta + row * N + n, mask=mask, other=0.0).to(tl.float32)
        tl.store(x + row * N + n, y.to(x.dtype.element_ty), mask=mask)
    y *= tl.rsqrt(tl.sum(y * y, axis=0) / N + eps)
    tl.store(out + row * N + n, (y * gain).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _silu_mul_kernel(x, out, N: tl.constexpr, BLOCK: tl.constexpr):
    """One program a (row, piece of the row)."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(x + row * 2 * N + n, mask=n < N, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * N + N + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + row * N + n, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=n < N)


@triton.jit
def _chunk_argmax_kernel(x, best, index, N, chunks, CHUNK: tl.constexpr):
    """One program a (row, chunk): its largest value and the lowest index that has it; infinity and -1 for a NaN."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    n = chunk * CHUNK + tl.arange(0, CHUNK)
    y = tl.load(x + row * N + n, mask=n < N, other=float("-inf")).to(tl.float32)
    broken = tl.max((y != y).to(tl.int32), axis=0)
    top = tl.max(y, axis=0)
    where = tl.min(tl.where((y == top) & (n < N), n, N), axis=0)
    tl.store(best + row * chunks + chunk, tl.where(broken > 0, float("inf"), top))
    tl.store(index + row * chunks + chunk, tl.where(broken > 0, -1, where))


@triton.jit
def _row_argmax_kernel(best, index, out, chunks, CP: tl.constexpr):
    """One program a row."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CP)
    values = tl.load(best + row * chunks + c, mask=c < chunks, other=float("-inf"))
    ids = tl.load(index + row * chunks + c, mask=c < chunks, other=2147483647)
    top = tl.max(values, axis=0)
    where = tl.min(tl.where(values == top, ids, 2147483647), axis=0)
    tl.store(out + row, tl.where(tl.abs(top) == float("inf"), -1, where))


@triton.jit
def _quantize_kernel(x, out, scales, N, BLOCK: tl.constexpr):
    """One program a row, in two passes over it."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, N, BLOCK):
        n = start + lane
        y = tl.load(x + row * N + n, mask=n < N, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(y))
    scale = tl.maximum(tl.max(largest, axis=0), 1e-12) / 448.0
    tl.store(scales + row, scale)
    for start in range(0, N, BLOCK):
        n = start + lane
        y = tl.load(x + row * N + n, mask=n < N, other=0.0).to(tl.float32)
        y = tl.minimum(tl.maximum(y / scale, -448.0), 448.0)
        tl.store(out + row * N + n, y.to(out.dtype.element_ty), mask=n < N)


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, out: Tensor, *, pdl: bool = False) -> None:
    """`x += delta` in place (rows, width), then its RMSNorm into `out`."""
    rows, width = x.shape
    _add_norm_kernel[(rows,)](
        x,
        x if delta is None else delta,
        weight,
        out,
        eps,
        N=width,
        NP=triton.next_power_of_2(width),
        ADD=delta is not None,
        PDL=pdl,
        num_warps=8 if width > 2048 else 4,
        **({"launch_pdl": True} if pdl else {}),
    )


def silu_mul(x: Tensor) -> Tensor:
    """`silu(gate) * up` (rows, width) of gate and up side by side (rows, 2 * width)."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    block = min(1024, triton.next_power_of_2(width))
    _silu_mul_kernel[(rows, triton.cdiv(width, block))](x, out, N=width, BLOCK=block, num_warps=4)
    return out


def argmax(x: Tensor, out: Tensor) -> None:
    """The lowest index of each row's largest value (rows, width) into `out` (rows,) int32; -1 if that is not finite."""
    rows, width = x.shape
    chunks = triton.cdiv(width, _CHUNK)
    best = torch.empty((rows, chunks), dtype=torch.float32, device=x.device)
    index = torch.empty((rows, chunks), dtype=torch.int32, device=x.device)
    _chunk_argmax_kernel[(rows, chunks)](x, best, index, width, chunks, CHUNK=_CHUNK, num_warps=8)
    _row_argmax_kernel[(rows,)](best, index, out, chunks, CP=triton.next_power_of_2(chunks), num_warps=4)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (rows, width) as e4m3 and the float32 factor of each (rows,): `x` is about their product."""
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    block = min(2048, triton.next_power_of_2(x.shape[1]))
    _quantize_kernel[(x.shape[0],)](x, out, scales, x.shape[1], BLOCK=block, num_warps=4)
    return out, scales

"""Products of a few rows with a matrix, where reading the matrix is all the time there is.

What stands before and after the product in a decoder is folded in, because at this size a launch costs as much as the
work: before it, the RMSNorm of the input or the weighing of attention's splits; after it, scales of an 8-bit matrix,
bias, SiLU gate, residual. Every program reads the whole input and its own rows of the matrix; the first tile of the
matrix is on its way before the input is waited for (programmatic dependent launch, `pdl`).
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from sagellm_core.layers.cuda.kernels.decode import EMPTY, Partials

FEW_ROWS = 16
"""Most rows that these products take."""
_SMALL = 2048


@triton.jit
def _tile(weight, n, k, N, K):
    """Rows `n`, columns `k` of a matrix (N, K); zeros outside it."""
    mask = (n < N)[:, None] & (k < K)[None, :]
    return tl.load(weight + n.to(tl.int64)[:, None] * K + k[None, :], mask=mask, other=0.0)


@triton.jit
def _weighed(partial, weight, r, k, mask, K, D: tl.constexpr, SPLITS: tl.constexpr):
    """Columns `k` of rows `r` of what attention's splits amount to, float32."""
    line = (r[:, None] * (K // D) + (k // D)[None, :]) * SPLITS
    best = tl.full(mask.shape, EMPTY, tl.float32)
    total = tl.zeros(mask.shape, tl.float32)
    acc = tl.zeros(mask.shape, tl.float32)
    for split in range(SPLITS):
        log = tl.load(weight + line + split, mask=mask, other=EMPTY)
        x = tl.load(partial + (line + split) * D + (k % D)[None, :], mask=mask & (log > EMPTY), other=0.0)
        top = tl.maximum(best, log)
        fade = tl.exp2(best - top)
        share = tl.exp2(log - top)
        acc = acc * fade + x * share
        total = total * fade + share
        best = top
    return acc / tl.where(total > 0, total, 1.0)


@triton.jit
def _nothing(ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Where a product is summed up. One row is summed over columns once at the end: inside, threads need not meet."""
    if ROWS == 1:
        return tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    else:  # noqa: RET505  the compiler takes one of the two
        return tl.zeros([ROWS, BLOCK_N], tl.float32)


@triton.jit
def _plus(acc, x, w, ROWS: tl.constexpr):
    """The product of x (ROWS, k) and w (n, k) on top; on the matrix units from two rows on."""
    if ROWS == 1:
        return acc + w.to(tl.float32) * x
    else:  # noqa: RET505  the compiler takes one of the two
        return acc + tl.dot(x, tl.trans(w.to(x.dtype)), input_precision="tf32x3")


@triton.jit
def _total(acc, ROWS: tl.constexpr):
    """(ROWS, n)."""
    if ROWS == 1:
        return tl.sum(acc, axis=1)[None, :]
    else:  # noqa: RET505  the compiler takes one of the two
        return acc


@triton.jit
def _finished(acc, n, N, inverse, scales, bias, ROWS: tl.constexpr, SCALED: tl.constexpr, HAS_BIAS: tl.constexpr):
    """(ROWS, n): the sums with the scales of their outputs, the norms of their rows and the bias."""
    y = _total(acc, ROWS)
    if SCALED:
        y *= tl.load(scales + n, mask=n < N, other=0.0)[None, :]
    y *= inverse[:, None]
    if HAS_BIAS:
        y += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _gemv_kernel(
    x, weight, scales, bias, norm, eps, out, partial, logs, rows, N, K,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HAS_BIAS: tl.constexpr, SCALED: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, COMBINE: tl.constexpr, D: tl.constexpr,
    SPLITS: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    """One program for BLOCK_N outputs of all rows. GATED: outputs `n` and `N + n` of the matrix are gate and up."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r, lane = tl.arange(0, ROWS), tl.arange(0, BLOCK_K)
    # The norm is a factor a row: it is multiplied in at the end, and its squares are summed on the way.
    squares = tl.zeros([ROWS, BLOCK_K if ROWS == 1 else 1], tl.float32)
    acc = _nothing(ROWS, BLOCK_N, BLOCK_K)
    gated = _nothing(ROWS, BLOCK_N, BLOCK_K)
    w = _tile(weight, n, lane, N, K)
    if GATED:
        lower = weight + N.to(tl.int64) * K
        up = _tile(lower, n, lane, N, K)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    for start in range(0, K, BLOCK_K):
        k = start + lane
        mask = (r < rows)[:, None] & (k < K)[None, :]
        if COMBINE:
            value = _weighed(partial, logs, r, k, mask, K, D, SPLITS)
        else:
            value = tl.load(x + r[:, None] * K + k[None, :], mask=mask, other=0.0).to(tl.float32)
        if NORM:
            squares += value * value if ROWS == 1 else tl.sum(value * value, axis=1)[:, None]
            value *= tl.load(norm + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
        if ROWS > 1:
            value = value.to(out.dtype.element_ty)
        acc = _plus(acc, value, w, ROWS)
        w = _tile(weight, n, k + BLOCK_K, N, K)
        if GATED:
            gated = _plus(gated, value, up, ROWS)
            up = _tile(lower, n, k + BLOCK_K, N, K)
    inverse = tl.rsqrt(tl.sum(squares, axis=1) / K + eps) if NORM else tl.full([ROWS], 1.0, tl.float32)
    y = _finished(acc, n, N, inverse, scales, bias, ROWS, SCALED, HAS_BIAS)
    if GATED:
        y = y * tl.sigmoid(y) * _finished(gated, n, N, inverse, scales + N, bias + N, ROWS, SCALED, HAS_BIAS)
    at = out + r.to(tl.int64)[:, None] * N + n[None, :]
    mask = (r < rows)[:, None] & (n < N)[None, :]
    if ADD:
        y += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, y.to(out.dtype.element_ty), mask=mask)


@dataclass(slots=True, frozen=True)
class GemvTiles:
    """Shape of a program's work, to be chosen by measurement: outputs, inputs at a time, warps."""

    outputs: int = 8
    inputs: int = 1024
    warps: int = 4

    @classmethod
    def usual(cls, outputs: int, *, gated: bool) -> GemvTiles:
        """A fair choice without measurement: a small matrix is cut finer, so that every multiprocessor has a part."""
        return cls(4 if gated or outputs <= _SMALL else 8)

    def fit(self, rows: int, columns: int) -> GemvTiles:
        """The same for a matrix of so many columns; matrix units want at least 16 outputs and shorter pieces."""
        inputs = min(self.inputs, max(16, triton.next_power_of_2(columns)))
        if rows == 1:
            return GemvTiles(self.outputs, inputs, self.warps)
        return GemvTiles(max(16, self.outputs), min(256, inputs), self.warps)


def few_rows(
    x: Tensor | Partials,
    weight: Tensor,
    out: Tensor,
    *,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add: bool = False,
    tiles: GemvTiles | None = None,
    pdl: bool = False,
) -> None:
    """`out = x @ weight.T` (rows, outputs) with the options below; at most `FEW_ROWS` rows, all tensors contiguous.

    x: (rows, inputs), or the splits of attention of one row, to be weighed first. weight: (outputs, inputs), for
    `gated` gate over up (2 * outputs, inputs). scales: of an 8-bit weight, float32, one an output. norm, eps: RMSNorm
    of x first. gated: `silu(gate) * up`. add: onto what `out` holds.
    """
    rows, outputs = out.shape
    inputs = weight.shape[1]
    split = isinstance(x, Partials)
    fitted = (tiles or GemvTiles.usual(outputs, gated=gated)).fit(rows, inputs)
    _gemv_kernel[(triton.cdiv(outputs, fitted.outputs),)](
        out if isinstance(x, Partials) else x,
        weight,
        out if scales is None else scales,
        out if bias is None else bias,
        out if norm is None else norm,
        eps,
        out,
        x.partial if isinstance(x, Partials) else out,
        x.weight if isinstance(x, Partials) else out,
        rows,
        outputs,
        inputs,
        ROWS=1 if rows == 1 else FEW_ROWS,
        BLOCK_N=fitted.outputs,
        BLOCK_K=fitted.inputs,
        HAS_BIAS=bias is not None,
        SCALED=scales is not None,
        NORM=norm is not None,
        GATED=gated,
        ADD=add,
        COMBINE=split,
        D=x.partial.shape[-1] if isinstance(x, Partials) else 1,
        SPLITS=x.splits if isinstance(x, Partials) else 1,
        PDL=pdl,
        num_warps=fitted.warps,
        **({"launch_pdl": True} if pdl else {}),
    )

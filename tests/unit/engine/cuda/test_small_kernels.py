"""The kernels between and instead of matrix products, interpreted, against plain torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from sagellm_core.layers.attention import AttentionSpec
from sagellm_core.layers.cuda.kernels import (
    DecodeCall,
    GemvTiles,
    Partials,
    add_norm,
    argmax,
    combine,
    few_rows,
    quantize_rows,
    silu_mul,
)

pytestmark = pytest.mark.spec("E5")
CPU = torch.device("cpu")


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected.float(), rtol=1e-5, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 3), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_residual_norm_gate(rows: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, delta = torch.randn(2, rows, width, generator=draw)
    weight, out = torch.rand(width, generator=draw), torch.empty(rows, width)
    expected = rms_norm(x + delta, (width,), weight, 1e-5)
    total = x + delta
    add_norm(x, delta, weight, 1e-5, out)
    near(out, expected)
    near(x, total)
    add_norm(x, None, weight, 1e-5, out)
    near(out, expected)
    both = torch.randn(rows, 2 * width, generator=draw)
    near(silu_mul(both), silu(both[:, :width]) * both[:, width:])


@pytest.mark.parametrize("width", [1, 5, 4096, 9001])
def test_argmax_takes_the_lowest_and_tells_broken_rows(width: int) -> None:
    x = torch.randn(6, width, generator=torch.Generator().manual_seed(1)).clamp(max=2.0)
    x[1, width // 2] = x[1, width - 1] = 9.0
    x[2, width // 3] = float("nan")
    x[3, width - 1] = float("inf")
    x[4] = float("-inf")
    found = torch.zeros(6, dtype=torch.int32)
    argmax(x, found)
    assert found[1] == width // 2
    assert found[2:5].tolist() == [-1, -1, -1]
    assert x[0, found[0]] == x[0].max()
    assert x[5, found[5]] == x[5].max()


def reference(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    options: dict[str, bool],
    scales: Tensor,
    bias: Tensor,
    norm: Tensor,
) -> Tensor:
    matrix = weight * scales[:, None] if options["scales"] else weight
    given = rms_norm(x, (x.shape[1],), norm, 1e-5) if options["norm"] else x
    y = linear(given, matrix, bias if options["bias"] else None)
    if options["gated"]:
        gate, up = y.chunk(2, dim=-1)
        y = silu(gate) * up
    return y + out if options["add"] else y


@settings(max_examples=16, deadline=None)
@given(
    rows=st.sampled_from([1, 1, 2, 5, 16]),
    outputs=st.integers(1, 40),
    inputs=st.integers(1, 80),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("scales", "bias", "norm", "gated", "add")}),
    tiles=st.sampled_from([GemvTiles(4, 32), GemvTiles(16, 16), None]),
)
def test_products_of_few_rows(
    rows: int, outputs: int, inputs: int, options: dict[str, bool], tiles: GemvTiles | None
) -> None:
    draw = torch.Generator().manual_seed(rows * outputs + inputs)
    height = outputs * (2 if options["gated"] else 1)
    x = torch.randn(rows, inputs, generator=draw)
    weight = torch.randn(height, inputs, generator=draw) / inputs**0.5  # sums near 1, as the bounds of `near` take it
    scales, bias = torch.rand(2, height, generator=draw)
    norm, out = torch.rand(inputs, generator=draw), torch.randn(rows, outputs, generator=draw)
    expected = reference(x, weight, out, options, scales, bias, norm)
    few_rows(
        x,
        weight,
        out,
        scales=scales if options["scales"] else None,
        bias=bias if options["bias"] else None,
        norm=norm if options["norm"] else None,
        eps=1e-5,
        gated=options["gated"],
        add=options["add"],
        tiles=tiles,
    )
    near(out, expected)


def test_splits_are_weighed_alike_before_a_product_and_by_themselves() -> None:
    """Splits without tokens count for nothing, whatever is left in their room."""
    spec = AttentionSpec(3, 1, 16, 1.0)
    draw = torch.Generator().manual_seed(2)
    room = Partials.room(1, 4, spec, CPU)
    room.partial.copy_(torch.randn(room.partial.shape, generator=draw))
    room.weight.copy_(torch.randn(room.weight.shape, generator=draw))
    room.weight[:, :, 2] = -1e30
    room.partial[:, :, 2] = float("nan")
    share = (room.weight * 0.6931471805599453).softmax(-1)
    expected = (share[..., None] * room.partial.nan_to_num()).sum(2)
    out = torch.empty(1, 3, 16)
    ones = torch.zeros(1, dtype=torch.int32)
    combine(room, DecodeCall(ones, ones, ones[:, None], ones), out)
    near(out, expected)
    weight, product = torch.randn(10, 48, generator=draw), torch.empty(1, 10)
    few_rows(room, weight, product)
    near(product, expected.view(1, 48) @ weight.t())


def test_rows_in_eight_bit_floats() -> None:
    """As torch rounds them, but for what rounds up to a power of two: there the interpreter loses the carry."""
    x = torch.randn(3, 100, generator=torch.Generator().manual_seed(3)) * torch.tensor([[1e-3], [1.0], [1e3]])
    small, scales = quantize_rows(x)
    torch.testing.assert_close(scales, x.abs().amax(1) / 448)
    expected = (x / scales[:, None]).to(torch.float8_e4m3fn).float()
    carried = expected.abs().log2().frac() == 0
    assert ((small.float() == expected) | carried).all()
    assert carried.sum() < 90
    assert quantize_rows(torch.zeros(1, 4))[0].float().eq(0).all()

"""The kernels on the device, against float32 on the CPU; inputs are new in every run of the interpreter's cases too."""

from __future__ import annotations

import pytest
import torch

from sagellm_core.backends.cuda import CUDABackend

if not CUDABackend.is_available():  # before anything imports the kernels: where there is no GPU, they are interpreted
    pytest.skip(CUDABackend.missing(), allow_module_level=True)
from tests.helpers.attention_cases import Case, check, near

pytestmark = [pytest.mark.gpu, pytest.mark.spec("E5")]
TYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(14, 2, 64), (28, 4, 128), (32, 8, 128), (12, 12, 80)])
def test_attention(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int) -> None:
    shape = (heads, kv_heads, head_dim, 16)
    check(Case([(1, 1), (1, 4000), (1, 129), (1, 64)], *shape, dtype=dtype), device)
    check(Case([(700, 700), (1, 33), (5, 1000), (130, 513)], *shape, dtype=dtype), device)
    check(Case([(1, 700), (1, 20)], *shape, window=100, norms=True, dtype=dtype), device)
    check(Case([(300, 900), (1, 20)], *shape, window=100, norms=True, dtype=dtype), device)


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("pdl", [False, True])
def test_products_of_few_rows(device: torch.device, rows: int, pdl: bool) -> None:
    """A chain in which each product reads what the one before it wrote, launched in turn and overlapping."""
    from sagellm_core.layers.cuda.kernels import few_rows

    if pdl and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("launches overlap from Hopper on")
    torch.manual_seed(0)
    x = torch.randn(rows, 896)
    up, down = torch.randn(2 * 4864, 896) / 30, torch.randn(896, 4864) / 70
    norm = torch.rand(896)
    state, expected = x.to(device, torch.bfloat16), x.bfloat16().float()
    matrices = [each.to(device, torch.bfloat16) for each in (up, down, norm)]
    for _ in range(8):
        inner = state.new_empty(rows, 4864)
        few_rows(state, matrices[0], inner, norm=matrices[2], eps=1e-6, gated=True, pdl=pdl)
        few_rows(inner, matrices[1], state, add=True, pdl=pdl)
        normed = torch.nn.functional.rms_norm(expected, (896,), norm.bfloat16().float(), 1e-6)
        gate, high = (normed @ up.bfloat16().float().t()).chunk(2, dim=-1)
        expected = expected + (torch.nn.functional.silu(gate) * high) @ down.bfloat16().float().t()
    assert (state.cpu().float() - expected).norm() <= 2e-2 * expected.norm()


def test_argmax_norm_gate(device: torch.device) -> None:
    from sagellm_core.layers.cuda.kernels import add_norm, argmax, silu_mul

    torch.manual_seed(0)
    logits = torch.randn(17, 151_936)
    logits[3, 77] = float("nan")
    found = torch.zeros(17, dtype=torch.int32, device=device)
    argmax(logits.to(device), found)
    expected = logits.argmax(-1)
    expected[3] = -1
    assert found.tolist() == expected.tolist()
    x, delta, weight = torch.randn(5, 3584), torch.randn(5, 3584), torch.rand(3584)
    out = torch.empty(5, 3584, device=device)
    add_norm(x.to(device), delta.to(device), weight.to(device), 1e-6, out)
    near(out.cpu(), torch.nn.functional.rms_norm(x + delta, (3584,), weight, 1e-6), torch.float32)
    both = torch.randn(5, 2 * 18_944)
    gate, up = both.chunk(2, dim=-1)
    near(silu_mul(both.to(device)).cpu(), torch.nn.functional.silu(gate) * up, torch.float32)


@pytest.mark.parametrize("rows", [1, 16, 300])
def test_eight_bit_products(device: torch.device, rows: int) -> None:
    from sagellm_core.layers.cuda.linear import float8_linear

    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("row-wise scaled e4m3 products need Hopper")
    torch.manual_seed(0)
    weight, bias, x = torch.randn(896, 4864), torch.randn(896), torch.randn(rows, 4864)
    op = float8_linear(weight.to(device, torch.bfloat16), bias.to(device, torch.bfloat16))
    expected = x @ weight.t() + bias
    found = op(x.to(device, torch.bfloat16)).cpu().float()
    assert (found - expected).norm() <= 5e-2 * expected.norm()

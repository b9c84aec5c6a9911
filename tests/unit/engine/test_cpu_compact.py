"""Bfloat16 in twelve bits: the same numbers to the bit, whatever the weights are, and what is too irregular for it."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagellm_core.backends.base import BackendConfig
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.layers.cpu import Feature, PackedLinear, Type, features, kernels
from sagellm_core.layers.cpu.build import compiled
from sagellm_core.layers.cpu.memory import Slabs

needs_kernels = pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler")
pytestmark = [pytest.mark.spec("E5")]


def packed(weight: torch.Tensor, kind: Type, threads: int = 2) -> PackedLinear:
    library = kernels()
    assert library is not None
    return PackedLinear(library, weight.clone(), None, kind, threads)


def normal(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return (torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.02).bfloat16()


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.bfloat16().view(torch.int16)


@needs_kernels
@settings(max_examples=30, deadline=None)
@given(
    outputs=st.integers(64, 200),
    units=st.integers(60, 160),
    rows=st.sampled_from([1, 2, 4, 5, 12, 13, 30, 37, 70]),
    odd=st.integers(0, 40),
    seed=st.integers(0, 1000),
)
def test_products_and_rows_are_bit_for_bit_those_of_bfloat16(
    outputs: int, units: int, rows: int, odd: int, seed: int
) -> None:
    weight = normal(outputs, 4 * units, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    places = torch.randperm(weight.numel(), generator=generator)[:odd]
    some = torch.tensor([0.0, -0.0, 1e-30, 300.0, -2e-9, 1.0])
    weight.view(-1)[places] = some[torch.arange(odd) % 6].bfloat16()
    compact, plain = packed(weight, Type.COMPACT), packed(weight, Type.BF16)
    assert compact.matrix.type == Type.COMPACT
    assert plain.matrix.type == Type.BF16
    x = normal(rows, 4 * units, seed + 2)
    assert torch.equal(bits(compact.rows(torch.arange(outputs))), bits(weight))
    assert torch.equal(compact.product(x, torch.float32), plain.product(x, torch.float32))


@needs_kernels
def test_special_values_survive() -> None:
    weight = normal(64, 512)
    values = [float("inf"), float("-inf"), float("nan"), 3.3e38, 1e-40, -0.0]
    weight[0, :6] = torch.tensor(values).bfloat16()
    op = packed(weight, Type.COMPACT)
    assert op.matrix.type == Type.COMPACT
    assert torch.equal(bits(op.rows(torch.arange(64))), bits(weight))


@needs_kernels
def test_a_matrix_takes_three_quarters_of_its_bytes() -> None:
    weight = normal(320, 896)
    assert packed(weight, Type.COMPACT).memory.nbytes < 0.76 * weight.nbytes


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back on Linux")
def test_the_source_is_given_back_unless_it_has_to_stay() -> None:
    library = kernels()
    assert library is not None
    rows = normal(4096, 512)
    given, kept = rows.clone(), rows.clone()
    for weight, in_place in ((given, True), (kept, False)):
        op = PackedLinear(library, weight, None, Type.COMPACT, 1, in_place=in_place)
        assert torch.equal(bits(op.rows(torch.arange(4096))), bits(rows))
    assert torch.equal(kept, rows)
    assert int((given == 0).sum()) > 0.9 * given.numel()


@needs_kernels
@pytest.mark.parametrize(
    ("weight", "why"),
    [
        (normal(64, 90), "inputs that are no multiple of four"),
        ((normal(64, 128).float() * 2.0 ** (torch.arange(8192).view(64, 128) % 60 - 30)).bfloat16(), "all exponents"),
        ((normal(64, 128).float() * (torch.arange(8192).view(64, 128) % 10 != 0)).bfloat16(), "many zeros"),
    ],
)
def test_what_does_not_fit_stays_bfloat16(weight: torch.Tensor, why: str) -> None:
    op = packed(weight, Type.COMPACT)
    assert op.matrix.type == Type.BF16, why
    assert torch.equal(bits(op.rows(torch.arange(64))), bits(weight))


@needs_kernels
def test_the_backend_keeps_bfloat16_so_where_the_processor_multiplies_it() -> None:
    library = kernels()
    assert library is not None
    op = CPUBackend(BackendConfig()).linear(normal(64, 512))
    assert isinstance(op, PackedLinear)
    assert op.matrix.type == (Type.COMPACT if Feature.BF16 in features(library) else Type.BF16)


def test_small_matrices_lie_together_and_go_together() -> None:
    slabs = Slabs()
    first, second, large = slabs.take(1000), slabs.take(3 << 20), slabs.take(20 << 20)
    assert (first.nbytes, second.nbytes, large.nbytes) == (1000, 3 << 20, 20 << 20)
    assert second.data_ptr() - first.data_ptr() == 1024
    assert not large.data_ptr() % (2 << 20)
    assert not any(int(each.count_nonzero()) for each in (first, second))
    area = slabs._area
    assert isinstance(area, weakref.ref)
    first.fill_(7)
    del first
    gc.collect()
    assert area() is not None
    assert not int(second.count_nonzero())
    del second
    gc.collect()
    assert area() is None
    assert slabs.take(10).nbytes == 10

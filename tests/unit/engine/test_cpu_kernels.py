"""The CPU's kernels against torch: every operation, odd shapes, and what must not depend on the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagellm_core.engine_core.plan import BatchType, SchedulerOutput
from sagellm_core.layers.attention import AttentionSpec, TorchPagedAttention
from sagellm_core.layers.cpu import CpuPagedAttention, PackedLinear, QuantisedLinear, Type, kernels
from sagellm_core.layers.cpu.build import compiled

needs_kernels = pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler")
pytestmark = [pytest.mark.spec("E5")]

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
KINDS = {torch.float32: Type.F32, torch.bfloat16: Type.BF16}


def matrix(outputs: int, inputs: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator).to(dtype)


def packed(weight: torch.Tensor, bias: torch.Tensor | None, kind: Type, threads: int = 2) -> PackedLinear:
    library = kernels()
    assert library is not None
    return PackedLinear(library, weight.clone(), bias, kind, threads)


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(1, 100),
    inputs=st.integers(1, 200),
    rows=st.integers(1, 30),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    with_bias=st.booleans(),
)
def test_products_are_those_of_torch(outputs: int, inputs: int, rows: int, dtype: torch.dtype, with_bias: bool) -> None:
    weight, x = matrix(outputs, inputs, dtype), matrix(rows, inputs, dtype, seed=1)
    bias = matrix(1, outputs, dtype, seed=2)[0] if with_bias else None
    expected = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    found = packed(weight, bias, KINDS[dtype])(x)
    assert found.dtype is dtype
    assert found.shape == (rows, outputs)
    bound = TOLERANCE[dtype] * (1 + inputs**0.5)
    assert (found.double() - expected).abs().max() <= bound


@needs_kernels
@pytest.mark.parametrize("kind", list(Type))
def test_a_row_does_not_depend_on_the_others(kind: Type) -> None:
    dtype = torch.float32 if kind is Type.F32 else torch.bfloat16
    op, x = packed(matrix(96, 300, dtype), None, kind), matrix(40, 300, dtype, seed=1)
    together = op(x)
    for rows in (1, 2, 5, 12, 13, 25):
        assert torch.equal(op(x[:rows]), together[:rows])
    assert torch.equal(op(x[7:8])[0], together[7])


@needs_kernels
@pytest.mark.parametrize("kind", [Type.I8, Type.I4])
@pytest.mark.parametrize("shape", [(96, 256), (33, 100), (1, 1)])
def test_whole_number_matrices_are_those_of_torch(kind: Type, shape: tuple[int, int]) -> None:
    """The kernels and the operators that replace them hold the same codes; sums differ by float32's rounding alone."""
    weight = matrix(*shape, torch.float32)
    # Activations that are whole numbers of their own scale: nothing lies near the border between two codes.
    x = torch.randint(-126, 127, (9, shape[1]), generator=torch.Generator().manual_seed(3)).float()
    x[:, :: 64 if kind is Type.I4 else 128] = 127.0
    mine, other = packed(weight, None, kind), QuantisedLinear(weight, None, kind)
    ids = torch.arange(shape[0])
    assert torch.allclose(mine.rows(ids), other.rows(ids), atol=1e-6)
    assert torch.allclose(mine(x), other(x), rtol=1e-4, atol=1e-2)


@needs_kernels
@pytest.mark.parametrize(("kind", "most"), [(Type.I8, 0.012), (Type.I4, 0.12)])
def test_quantised_products_are_near_the_full_ones(kind: Type, most: float) -> None:
    weight, x = matrix(256, 512, torch.float32), matrix(16, 512, torch.float32, seed=1)
    full = x @ weight.t()
    error = (packed(weight, None, kind)(x) - full).norm() / full.norm()
    assert 0 < error < most


@needs_kernels
def test_a_packed_matrix_of_whole_panels_takes_no_second_copy() -> None:
    library = kernels()
    assert library is not None
    weight = matrix(64, 32, torch.bfloat16)
    rows = weight.clone()
    op = PackedLinear(library, weight, None, Type.BF16, 1)
    assert op.memory.data_ptr() == weight.data_ptr()
    assert torch.equal(op.rows(torch.arange(64)), rows.float())


def plan_of(pieces: list[tuple[int, int]], block_size: int) -> SchedulerOutput:
    """A step with pieces (new tokens, tokens before them), whose blocks are dealt out in turns."""
    tables: list[list[int]] = [[] for _ in pieces]
    block = 0
    for index in range(max(-(-(new + old) // block_size) for new, old in pieces)):
        for table, (new, old) in zip(tables, pieces, strict=True):
            if index * block_size < new + old:
                table.append(block)
                block += 1
    positions = [at for new, old in pieces for at in range(old, old + new)]
    slots = [
        table[at // block_size] * block_size + at % block_size
        for table, (new, old) in zip(tables, pieces, strict=True)
        for at in range(old, old + new)
    ]
    return SchedulerOutput(
        step=1,
        batch_type=BatchType.MIXED,
        seq_ids=[str(index) for index in range(len(pieces))],
        token_ids=[0] * len(positions),
        positions=positions,
        slot_mapping=slots,
        query_lens=[new for new, _ in pieces],
        context_lens=[new + old for new, old in pieces],
        block_tables=tables,
        samples=[True] * len(pieces),
    )


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 70), st.integers(0, 150)), min_size=1, max_size=4),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    dim=st.sampled_from([8, 16, 48, 64, 80]),
    block_size=st.sampled_from([1, 4, 16]),
    window=st.sampled_from([None, 1, 20, 100]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_attention_is_that_of_the_reference(
    pieces: list[tuple[int, int]],
    kv_heads: int,
    group: int,
    dim: int,
    block_size: int,
    window: int | None,
    dtype: torch.dtype,
) -> None:
    library = kernels()
    assert library is not None
    plan = plan_of(pieces, block_size)
    tokens, heads = plan.num_tokens, kv_heads * group
    spec = AttentionSpec(heads, kv_heads, dim, dim**-0.5, window)
    blocks = max(max(table) for table in plan.block_tables) + 1
    cache = matrix(2 * blocks, block_size * kv_heads * dim, dtype).view(2, blocks, block_size, kv_heads, dim)
    query = matrix(tokens, heads * dim, dtype, 1).view(tokens, heads, dim)
    key = matrix(tokens, kv_heads * dim, dtype, 2).view(tokens, kv_heads, dim)
    value = matrix(tokens, kv_heads * dim, dtype, 3).view(tokens, kv_heads, dim)
    reference, mine = TorchPagedAttention(block_size, CPU), CpuPagedAttention(library, block_size, CPU, 2)
    exact = cache.float()
    expected = reference.attend(
        query.float(), key.float(), value.float(), exact, reference.prepare(plan, torch.float32), spec
    )
    found = mine.attend(query, key, value, cache, mine.prepare(plan, dtype), spec)
    assert torch.equal(cache.float(), exact)
    assert torch.allclose(found.float(), expected, atol=1e-4 if dtype is torch.float32 else 4e-2)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_a_token_depends_on_its_context_alone(dtype: torch.dtype) -> None:
    """The last token of a prompt gets the same bits in one go, after a chunk, alone as a decode, and in a batch."""
    library = kernels()
    assert library is not None
    spec = AttentionSpec(6, 2, 32, 32**-0.5)
    attention = CpuPagedAttention(library, 16, CPU, 2)
    length = 150
    parts = [matrix(length, heads * 32, dtype, seed).view(length, heads, 32) for seed, heads in enumerate((6, 2, 2))]
    whole = plan_of([(length, 0)], 16)

    def attended(cuts: list[int], beside: int = 0) -> torch.Tensor:
        cache = torch.zeros(2, 64, 16, 2, 32, dtype=dtype)
        out = torch.empty(0)
        for first, last in zip([0, *cuts], [*cuts, length], strict=True):
            plan = plan_of([(last - first, first)] + [(1, 40)] * beside, 16)
            plan.block_tables[0][:] = whole.block_tables[0][: len(plan.block_tables[0])]
            plan.slot_mapping[: last - first] = whole.slot_mapping[first:last]
            for index in range(beside):
                plan.block_tables[index + 1][:] = [50 + 3 * index, 51 + 3 * index, 52 + 3 * index]
                plan.slot_mapping[last - first + index] = (52 + 3 * index) * 16
            query, key, value = (torch.cat((part[first:last], part[:beside])) for part in parts)
            out = attention.attend(query, key, value, cache, attention.prepare(plan, dtype), spec)[: last - first]
        return out[-1]

    alone = attended([])
    for cuts, beside in (([64], 0), ([37, 100], 0), ([149], 0), ([149], 3), ([70], 2)):
        assert torch.equal(attended(cuts, beside), alone)


def test_without_a_compiler_nothing_is_lost(tmp_path: Path) -> None:
    """Said once in the log, and `None` for who asks."""
    script = "from sagellm_core.layers.cpu.build import compiled; print(compiled(), compiled())"
    environment = {"PATH": str(tmp_path), "SAGE_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["None", "None"]
    assert done.stderr.count("no C++ compiler") == 1


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "cxx"
    broken.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n")
    broken.chmod(0o755)
    script = "from sagellm_core.layers.cpu.build import compiled; print(compiled())"
    environment = {"PATH": "/usr/bin:/bin", "SAGE_CACHE": str(tmp_path), "HOME": str(tmp_path), "CXX": str(broken)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "None"
    assert "no such option" in done.stderr
    assert not list(tmp_path.glob("kernels/*.tmp"))


_TINY_COMPILER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo made >> {made}
echo "int made;" | exec g++ -shared -fPIC -x c++ -o "$2" -
"""


@pytest.fixture
def tiny_compiler(tmp_path: Path) -> tuple[Path, Path]:
    """A compiler that is done at once, and a file with a line for each time that it ran."""
    compiler, made = tmp_path / "compiler", tmp_path / "made"
    compiler.write_text(_TINY_COMPILER.format(made=made))
    compiler.chmod(0o755)
    return compiler, made


def load_kernels(cache: Path, compiler: Path, **more: str) -> str:
    script = "from sagellm_core.layers.cpu.build import compiled; print(compiled())"
    environment = {"PATH": os.environ["PATH"], "SAGE_CACHE": str(cache), "CXX": str(compiler), **more}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_kernels
def test_a_torn_file_in_the_cache_is_built_again(tmp_path: Path, tiny_compiler: tuple[Path, Path]) -> None:
    compiler, made = tiny_compiler
    for _ in range(2):
        assert "CDLL" in load_kernels(tmp_path / "cache", compiler)
    assert made.read_text() == "made\n"
    (kept,) = (tmp_path / "cache" / "kernels").glob("*.so")
    kept.write_bytes(b"")
    assert "CDLL" in load_kernels(tmp_path / "cache", compiler)
    assert made.read_text() == "made\n" * 2


@needs_kernels
def test_a_cache_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, tiny_compiler: tuple[Path, Path]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    compiler, made = tiny_compiler
    assert "CDLL" in load_kernels(tmp_path / "file", compiler, TMPDIR=str(tmp_path / "temporary"))
    assert made.read_text() == "made\n"
    assert not list((tmp_path / "temporary").iterdir())

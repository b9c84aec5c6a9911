"""Every GPU kernel through the compiler to the machine code of a Hopper GPU, at the shapes of real models.

The interpreter takes what the compiler does not, and says nothing of speed. The machine code does: no spilled
registers, matrix units where they belong, 16-byte loads, and the first tile of a matrix on its way before a launch
waits for the one before it, while nothing is stored until then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")

pytestmark = [pytest.mark.spec("E5"), pytest.mark.slow, pytest.mark.timeout(400)]
PROGRAM = Path(__file__).parents[3] / "helpers" / "compile_kernels.py"
SHARED_MEMORY = 227 << 10
HALF_A_BILLION = (14, 2, 64, 896, 4864, 151936)


def compiled(tmp_path: Path, *shape: int) -> dict[str, dict[str, int]]:
    """What the compiler says, by kernel and variant; `shape` as `launch_all` takes it."""
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, shape)], capture_output=True, text=True, env=env, timeout=380, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def check(found: dict[str, dict[str, int]], kernels: int) -> None:
    assert len(found) == kernels
    for name, numbers in found.items():
        assert numbers["stack"] == 0, f"{name} spills: {numbers}"
        assert numbers["shared"] <= SHARED_MEMORY, name
        assert numbers.get("stores_ahead", 0) == 0, f"{name} stores before it may: {numbers}"
        if name.startswith("_prefill"):
            assert numbers["wgmma"] > 0
            assert numbers["async_copies"] > 0
        if name.startswith("_decode"):
            assert numbers["async_copies"] > 0
        if name.startswith(("_gemv", "_silu", "_add_norm", "_prefill", "_decode")):
            assert numbers["wide_loads"] > 0, name
        if name.startswith("_gemv"):
            assert numbers["loads_ahead"] > 0, name


def test_half_a_billion_parameters(tmp_path: Path) -> None:
    check(compiled(tmp_path, *HALF_A_BILLION, 1), kernels=13)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "shape", [HALF_A_BILLION, (28, 4, 128, 3584, 18944, 152064), (32, 8, 128, 4096, 14336, 128256)]
)
def test_every_variant(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Windows, norms of heads, several rows: at the shapes of Qwen2.5 0.5B and 7B."""
    check(compiled(tmp_path, *shape, 2), kernels=21)


@pytest.mark.exhaustive
def test_wide_heads_fit_an_older_device_too(tmp_path: Path) -> None:
    """Heads of 128 and 256 in float32 and of 256 in bfloat16: into the 163 KB that an A100 has."""
    found = compiled(tmp_path)
    assert len(found) == 6
    for name, numbers in found.items():
        assert numbers["shared"] <= 163 << 10, f"{name}: {numbers}"

"""Tests that need an NVIDIA GPU: `make test-gpu`. Elsewhere each is skipped, and says why."""

from __future__ import annotations

import pytest

from sagellm_core.backends.cuda import CUDABackend


@pytest.fixture(autouse=True)
def gpu() -> None:
    """Skip without a GPU, and where the kernels were already imported for the interpreter."""
    if not CUDABackend.is_available():
        pytest.skip(CUDABackend.missing())
    from triton.runtime.jit import JITFunction

    from sagellm_core.layers.cuda.kernels import pointwise

    if not isinstance(pointwise._row_argmax_kernel, JITFunction):
        pytest.skip("the kernels are interpreted in this process; make test-gpu compiles them")

"""The GPU kernels on a CPU: Triton's interpreter is chosen when the kernels are imported, so they are imported here.

Where there is a GPU, kernels are compiled instead: one process can do only one of the two, and `make test-gpu` and the
GPU cases of other tests are worth more there. `CUDA_VISIBLE_DEVICES=` brings the interpreter back.
"""

import os
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is not None and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton.experimental.gluon  # noqa: F401  its standard library is made when it is imported, too

        import sagellm_core.layers.cuda.kernels  # noqa: F401
    finally:
        del os.environ["TRITON_INTERPRET"]


@pytest.fixture(autouse=True)
def interpreted_kernels() -> None:
    """Skip where the kernels are not interpreted."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is here, so that the kernels are compiled: make test-gpu")

"""The GPU kernels, in Triton: each file has its kernels and the typed functions that launch them.

They run on NVIDIA GPUs, and anywhere through Triton's interpreter (`TRITON_INTERPRET=1` before the first import). All
sums are in float32 whatever the tensors have; float32 products are made of three tf32 ones (`tf32x3`), which loses next
to nothing and stays on the matrix units. A tile's sides are powers of two; what sticks out is masked.
"""

from sagellm_core.layers.cuda.kernels.decode import DecodeCall, Partials, combine, decode_fused, decode_rotated
from sagellm_core.layers.cuda.kernels.gemv import FEW_ROWS, GemvTiles, few_rows
from sagellm_core.layers.cuda.kernels.pointwise import add_norm, argmax, quantize_rows, silu_mul
from sagellm_core.layers.cuda.kernels.prefill import PrefillTiles, prefill
from sagellm_core.layers.cuda.kernels.store import rotate_and_store

__all__ = [
    "FEW_ROWS",
    "DecodeCall",
    "GemvTiles",
    "Partials",
    "PrefillTiles",
    "add_norm",
    "argmax",
    "combine",
    "decode_fused",
    "decode_rotated",
    "few_rows",
    "prefill",
    "quantize_rows",
    "rotate_and_store",
    "silu_mul",
]

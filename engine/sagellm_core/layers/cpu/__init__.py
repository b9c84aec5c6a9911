"""The CPU's own kernels: compiled on first use, called on raw pointers."""

from sagellm_core.layers.cpu.attention import CpuPagedAttention
from sagellm_core.layers.cpu.decoder import FusedDecoder, fuse
from sagellm_core.layers.cpu.library import TYPES, Feature, Type, features, kernels
from sagellm_core.layers.cpu.linear import PackedLinear

__all__ = [
    "CpuPagedAttention",
    "Feature",
    "FusedDecoder",
    "PackedLinear",
    "TYPES",
    "Type",
    "features",
    "fuse",
    "kernels",
]

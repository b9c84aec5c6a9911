"""The CPU's own kernels: compiled on first use, called on raw pointers."""

from sagellm_core.layers.cpu.attention import CpuPagedAttention
from sagellm_core.layers.cpu.decoder import FusedDecoder, fuse, tie
from sagellm_core.layers.cpu.library import TYPES, Feature, Type, features, kernels
from sagellm_core.layers.cpu.linear import PackedLinear
from sagellm_core.layers.cpu.quantised import QuantisedLinear
from sagellm_core.layers.cpu.steps import DecodeSteps

__all__ = [
    "TYPES",
    "CpuPagedAttention",
    "DecodeSteps",
    "Feature",
    "FusedDecoder",
    "PackedLinear",
    "QuantisedLinear",
    "Type",
    "features",
    "fuse",
    "kernels",
    "tie",
]

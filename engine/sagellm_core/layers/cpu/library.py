"""The C face of the kernels (`kernels/kernels.cpp`) in ctypes: the structures, and one function a call."""

from __future__ import annotations

from ctypes import CDLL, POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from enum import IntEnum, IntFlag
from functools import cache

import torch

from sagellm_core.layers.cpu.build import compiled


class Type(IntEnum):
    """What a matrix, a cache or a row holds; COMPACT: bfloat16 in 12 bits, without loss (kernels/compact.h)."""

    F32 = 0
    BF16 = 1
    I8 = 2
    I4 = 3
    COMPACT = 4


TYPES = {torch.float32: Type.F32, torch.bfloat16: Type.BF16}


class Feature(IntFlag):
    """What the processor offers to the kernels as compiled."""

    AVX512 = 1
    BF16 = 2
    INT8 = 4


class Matrix(Structure):
    """A packed matrix (outputs, inputs)."""

    _fields_ = (
        ("type", c_int32),
        ("reserved", c_int32),
        ("outputs", c_int64),
        ("inputs", c_int64),
        ("data", c_void_p),
        ("bias", c_void_p),
    )


class Heads(Structure):
    """One layer's attention; `window` 0: every token before."""

    _fields_ = (
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("dim", c_int64),
        ("window", c_int64),
        ("scale", c_float),
        ("cache_type", c_int32),
    )


class Step(Structure):
    """Pointers to int64 arrays of a step; see attention.h."""

    _fields_ = (
        ("tokens", c_int64),
        ("sequences", c_int64),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("query_lens", c_void_p),
        ("context_lens", c_void_p),
        ("starts", c_void_p),
        ("blocks", c_void_p),
        ("block_size", c_int64),
        ("num_blocks", c_int64),
    )


class Layer(Structure):
    """One block of a decoder; norms are float32, those of heads may be null."""

    _fields_ = (
        ("qkv", Matrix),
        ("output", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("window", c_int64),
    )


class Shape(Structure):
    """A decoder; `cos` and `sin` are (positions, dim) float32, `norm`, and the data of the matrices may be null."""

    _fields_ = (
        ("layers", c_int64),
        ("hidden", c_int64),
        ("inner", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("dim", c_int64),
        ("eps", c_float),
        ("scale", c_float),
        ("cache_type", c_int32),
        ("threads", c_int32),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("norm", c_void_p),
        ("embed", Matrix),
        ("head", Matrix),
    )


class Wanted(Structure):
    """Rows of a step that become logits; see decoder.h. `allowed` may be null."""

    _fields_ = (
        ("count", c_int64),
        ("rows", c_void_p),
        ("logits", c_void_p),
        ("likeliest", c_void_p),
        ("allowed", c_void_p),
    )


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "sage_features": (c_int, []),
    "sage_matrix_bytes": (c_int64, [POINTER(Matrix)]),
    "sage_compact_bytes": (c_int64, [POINTER(Matrix), c_void_p, c_int]),
    "sage_pack": (c_int, [POINTER(Matrix), c_void_p, c_int, c_int, c_int]),
    "sage_embed": (c_int, [POINTER(Matrix), c_void_p, c_int64, c_void_p, c_int]),
    "sage_linear": (c_int, [POINTER(Matrix), c_void_p, c_int, c_int64, c_int64, c_void_p, c_int, c_int]),
    "sage_attend": (
        c_int,
        [POINTER(Step), POINTER(Heads), c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_int],
    ),
    "sage_decoder_new": (c_void_p, [POINTER(Shape), POINTER(Layer)]),
    "sage_decoder_free": (None, [c_void_p]),
    "sage_decoder_forward": (c_int, [c_void_p, POINTER(Step), c_void_p, c_void_p, POINTER(c_void_p)]),
    "sage_decoder_decode": (
        c_int,
        [c_void_p, POINTER(Step), c_void_p, c_void_p, POINTER(c_void_p), POINTER(Wanted)],
    ),
}


@cache
def kernels() -> CDLL | None:
    """The compiled kernels with their signatures, None where they cannot be had."""
    library = compiled()
    if library is None:
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def features(library: CDLL) -> Feature:
    return Feature(library.sage_features())


def check(status: int) -> None:
    """Raise what a kernel reported."""
    if status == 1:
        raise MemoryError("not enough memory for a step")
    if status:
        raise RuntimeError("a CPU kernel failed")

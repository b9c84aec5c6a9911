"""Matrices in the kernels' layout: one copy that serves one row and many."""

from __future__ import annotations

import weakref
from ctypes import CDLL, byref

import torch
from torch import Tensor

from sagellm_core.layers.cpu.library import TYPES, Matrix, Type, check
from sagellm_core.layers.cpu.memory import Slabs

_PANEL = 32
_LARGE = 1 << 18


class PackedLinear:
    """`x @ weight.T + bias` for a weight (outputs, inputs), float32 or bfloat16, kept as `kind`.

    A matrix of whole panels that keeps its type is packed in its own memory, and that of a compact one is given back to
    the system while it is packed: `weight` is then no longer rows, but for `in_place` false. Where COMPACT saves too
    little, or cannot be, the matrix becomes BF16. A row of the result does not depend on the others, and is the same
    bits in both.
    """

    def __init__(
        self,
        library: CDLL,
        weight: Tensor,
        bias: Tensor | None,
        kind: Type,
        threads: int,
        *,
        in_place: bool = True,
        slabs: Slabs | None = None,
    ) -> None:
        self.library = library
        self.threads = threads
        self.dtype = weight.dtype
        self.bias = None if bias is None else bias.float().contiguous()
        self.matrix = Matrix(type=kind, outputs=weight.shape[0], inputs=weight.shape[1])
        self.matrix.bias = None if self.bias is None else self.bias.data_ptr()
        source = weight.contiguous()
        size = self._compact_bytes(source) if kind is Type.COMPACT else 0
        if kind is Type.COMPACT and not size:
            self.matrix.type = kind = Type.BF16
        size = size or library.sage_matrix_bytes(byref(self.matrix))
        own = in_place and source is weight and size == weight.nbytes and weight.shape[0] % _PANEL == 0
        own = own and TYPES[weight.dtype] == kind
        self.memory = source if own else (slabs or Slabs()).take(size)
        self._last: weakref.ref[Tensor] | None = None
        self._buffer = torch.empty(0)
        self.matrix.data = self.memory.data_ptr()
        release = in_place or source is not weight
        check(library.sage_pack(byref(self.matrix), source.data_ptr(), TYPES[weight.dtype], release, threads))

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, inputs) float32 or bfloat16 to (rows, outputs) of the same type."""
        return self.product(x, x.dtype)

    def product(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The same in another type than that of `x`."""
        if x.stride(-1) != 1:
            x = x.contiguous()
        out = self._result(x.shape[0], dtype)
        status = self.library.sage_linear(
            byref(self.matrix),
            x.data_ptr(),
            TYPES[x.dtype],
            x.stride(0),
            x.shape[0],
            out.data_ptr(),
            TYPES[dtype],
            self.threads,
        )
        check(status)
        return out

    def _result(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Where a result goes. A large one is written over the last one once nobody has that: new pages cost more."""
        count = rows * int(self.matrix.outputs)
        if count * dtype.itemsize < _LARGE:
            return torch.empty((rows, self.matrix.outputs), dtype=dtype)
        if self._buffer.dtype is not dtype or self._buffer.numel() < count or (self._last and self._last() is not None):
            self._buffer = torch.empty(count, dtype=dtype)
        result = self._buffer[:count].view(rows, -1)
        self._last = weakref.ref(result)
        return result

    def _compact_bytes(self, source: Tensor) -> int:
        if source.dtype is not torch.bfloat16:
            return 0
        return int(self.library.sage_compact_bytes(byref(self.matrix), source.data_ptr(), self.threads))

    def rows(self, ids: Tensor) -> Tensor:
        """The rows `ids` (int64) of the weight, float32: an embedding."""
        out = torch.empty((ids.shape[0], self.matrix.inputs), dtype=torch.float32)
        check(self.library.sage_embed(byref(self.matrix), ids.data_ptr(), ids.shape[0], out.data_ptr(), self.threads))
        return out

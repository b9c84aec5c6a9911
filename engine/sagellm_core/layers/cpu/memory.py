"""Memory in huge pages: a matrix or a cache that is read all over costs fewer walks through page tables."""

from __future__ import annotations

import mmap
import weakref

import torch
from torch import Tensor

_HUGE = 2 << 20


_SLAB = 64 << 20
_SHARING = 16 << 20
_LINE = 64


def zero_pages(size: int) -> Tensor:
    """`size` bytes of zeros that the system hands out on first touch, in huge pages where it has them; uint8."""
    area = None if size < _HUGE else _huge_area(size)
    if area is None:
        return torch.zeros(size, dtype=torch.uint8)
    return torch.frombuffer(area, dtype=torch.uint8, count=size, offset=_first(area))


class Slabs:
    """Memory for matrices, those that are smaller than a huge page too: they lie in it together.

    What lies together is given back together; an area that nobody uses any more is not kept.
    """

    def __init__(self) -> None:
        self._area: weakref.ref[mmap.mmap] | None = None
        self._free = 0

    def take(self, size: int) -> Tensor:
        """`size` bytes of zeros, uint8, at the beginning of a cache line."""
        if not 0 < size <= _SHARING:
            return zero_pages(size)
        area = None if self._area is None else self._area()
        if area is None or self._free + size > len(area):
            area = _huge_area(_SLAB)
            if area is None:
                return zero_pages(size)
            self._area, self._free = weakref.ref(area), _first(area)
        at, self._free = self._free, self._free + size + -size % _LINE
        return torch.frombuffer(area, dtype=torch.uint8, count=size, offset=at)


def _huge_area(size: int) -> mmap.mmap | None:
    """Room for `size` bytes from a huge page's border on; None where the system has no private mappings."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return None
    area = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    return area


def _first(area: mmap.mmap) -> int:
    """Where the area's first whole huge page begins."""
    return -torch.frombuffer(area, dtype=torch.uint8).data_ptr() % _HUGE

"""Memory in huge pages: a matrix or a cache that is read all over costs fewer walks through page tables."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_HUGE = 2 << 20


def zero_pages(size: int) -> Tensor:
    """`size` bytes of zeros that the system hands out on first touch, in huge pages where it has them; uint8."""
    if size < _HUGE:
        return torch.zeros(size, dtype=torch.uint8)
    if not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(size, dtype=torch.uint8)
    area = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(area, dtype=torch.uint8)
    first = -whole.data_ptr() % _HUGE
    return whole[first : first + size]

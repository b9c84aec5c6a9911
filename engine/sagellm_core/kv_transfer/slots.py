"""Memory that two processes of one host share, in equal slots. It has no name: it goes with the last that holds it."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path


class SharedSlots:
    """`count` slots of `size` bytes each over one descriptor, which may be sent over a socket file."""

    def __init__(self, descriptor: int, size: int, count: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.count = count
        self._memory = mmap.mmap(descriptor, size * count)
        self._view = memoryview(self._memory)

    @classmethod
    def create(cls, size: int, count: int) -> SharedSlots:
        """New slots. Raises OSError when the system has no memory for them."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("sage-kv")
        else:
            descriptor, path = tempfile.mkstemp(prefix="sage-kv-")
            Path(path).unlink()
        os.ftruncate(descriptor, size * count)
        return cls(descriptor, size, count)

    def slot(self, index: int) -> memoryview:
        return self._view[index * self.size : (index + 1) * self.size]

    def close(self) -> None:
        """Give the memory back; where someone still looks into a slot, when that view is gone."""
        os.close(self.descriptor)
        try:
            self._view.release()
            self._memory.close()
        except BufferError:
            pass

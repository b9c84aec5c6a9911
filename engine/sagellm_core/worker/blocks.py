"""Whole cache blocks: how one is copied, leaves an engine's cache as bytes, and enters another's."""

from __future__ import annotations

import torch
from torch import Tensor


class BlockStore:
    """Copies, reads and writes whole blocks of a rank's caches, each (2, blocks, block_size, kv_heads, head_dim).

    A block's content is (layers, 2, block_size, kv_heads, head_dim) in the caches' own type and byte order.
    """

    def __init__(self, caches: list[Tensor]) -> None:
        self._caches = caches
        first = caches[0]
        side = (len(caches), first.shape[0], *first.shape[2:])
        self.layout = f"{str(first.dtype).removeprefix('torch.')}{list(side)}"
        self._shape = side
        self.block_bytes = sum(cache[:, 0].nbytes for cache in caches)

    @torch.inference_mode()
    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy the content of blocks (source, target), as if one pair after the other."""
        sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
        if not set(sources).isdisjoint(targets) or len(set(targets)) < len(targets):
            for pair in pairs:
                self._copy([pair[0]], [pair[1]])
        elif pairs:
            self._copy(sources, targets)

    def _copy(self, sources: list[int], targets: list[int]) -> None:
        for cache in self._caches:
            device = cache.device
            content = cache.index_select(1, torch.tensor(sources, device=device))
            cache.index_copy_(1, torch.tensor(targets, device=device), content)

    @torch.inference_mode()
    def read(self, blocks: list[int]) -> bytearray:
        """Content of these blocks, one after the other."""
        content = bytearray(len(blocks) * self.block_bytes)
        out = self._view(content, len(blocks))
        for layer, cache in enumerate(self._caches):
            ids = torch.tensor(blocks, device=cache.device)
            out[:, layer].copy_(cache.index_select(1, ids).transpose(0, 1))
        return content

    @torch.inference_mode()
    def write(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        """Fill these blocks. Raises ValueError when the content is not that of as many blocks."""
        if len(content) != len(blocks) * self.block_bytes:
            raise ValueError(f"{len(blocks)} blocks have {len(blocks) * self.block_bytes} bytes, not {len(content)}")
        given = self._view(content, len(blocks))
        for layer, cache in enumerate(self._caches):
            ids = torch.tensor(blocks, device=cache.device)
            cache.index_copy_(1, ids, given[:, layer].transpose(0, 1).to(cache.device))

    def _view(self, content: bytes | bytearray | memoryview, count: int) -> Tensor:
        """(blocks, layers, 2, block_size, kv_heads, head_dim) over the same memory."""
        if isinstance(content, bytes):
            content = bytearray(content)
        flat = torch.frombuffer(content, dtype=torch.uint8)
        return flat.view(self._caches[0].dtype).view(count, *self._shape)

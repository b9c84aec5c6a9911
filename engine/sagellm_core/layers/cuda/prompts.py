"""Kernels for sequences that bring several tokens, interchangeable: ours, torch's variable-length one, FlashInfer's.

The last two take rows that follow each other. Which of them is used is measured, see `choice`; ours is always there.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from sagellm_core.layers.attention import AttentionSpec
from sagellm_core.layers.cuda.kernels import PrefillTiles, prefill
from sagellm_core.layers.cuda.metadata import Pieces

_WORKSPACE = 128 << 20


class PromptKernel(Protocol):
    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        """Attend with rotated queries (rows, heads, head_dim) of the pieces, over a cache that has their keys."""
        ...


class TritonPrompts:
    """Our kernel: any block size, any rows, any type."""

    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        tiles = PrefillTiles.of(spec, cache)
        work = pieces.work(tiles.tokens(spec))
        prefill(query, cache, out, work, pieces.starts, pieces.counts, pieces.lengths, pieces.tables, spec, tiles)


class VarlenPrompts:
    """`torch.nn.attention.varlen.varlen_attn`, from the torch on whose paged cache it works (2.12)."""

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._attend = varlen_attn

    @staticmethod
    def is_installed() -> bool:
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            return False
        return "block_table" in inspect.signature(varlen_attn).parameters

    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        rows = pieces.rows
        longest, most = max(pieces.host_lengths), max(pieces.host_counts)
        result = self._attend(
            query[rows],
            cache[0],
            cache[1],
            pieces.ends,
            None,
            most,
            longest,
            scale=spec.scale,
            window_size=(-1 if spec.window is None else spec.window - 1, 0),
            enable_gqa=spec.num_heads != spec.num_kv_heads,
            seqused_k=pieces.lengths,
            block_table=pieces.tables,
        )
        assert isinstance(result, Tensor)
        out[rows] = result


class FlashInferPrompts:
    """FlashInfer's paged prefill (https://docs.flashinfer.ai): planned once a step for each kind of layer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wrappers: dict[AttentionSpec, Any] = {}
        self._planned: dict[AttentionSpec, int] = {}

    @staticmethod
    def is_installed() -> bool:
        return find_spec("flashinfer") is not None

    def __call__(self, query: Tensor, cache: Tensor, out: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        rows = pieces.rows
        if self._planned.get(spec) != id(pieces):
            self._plan(query.dtype, cache, pieces, spec)
            self._planned[spec] = id(pieces)
        out[rows] = self._wrappers[spec].run(query[rows], (cache[0], cache[1]))

    def _plan(self, dtype: torch.dtype, cache: Tensor, pieces: Pieces, spec: AttentionSpec) -> None:
        if spec not in self._wrappers:
            from flashinfer import BatchPrefillWithPagedKVCacheWrapper

            workspace = torch.empty(_WORKSPACE, dtype=torch.uint8, device=self._device)
            self._wrappers[spec] = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        page = cache.shape[2]
        pages = [-(-length // page) for length in pieces.host_lengths]
        firsts = torch.tensor([0, *pages], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        used = torch.arange(pieces.tables.shape[1])[None, :] < torch.tensor(pages)[:, None]
        last = [length - (count - 1) * page for length, count in zip(pieces.host_lengths, pages, strict=True)]
        self._wrappers[spec].plan(
            pieces.ends,
            firsts.to(self._device),
            pieces.tables[used.to(self._device)],
            torch.tensor(last, dtype=torch.int32).to(self._device),
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_dim,
            page,
            causal=True,
            sm_scale=spec.scale,
            window_left=-1 if spec.window is None else spec.window - 1,
            q_data_type=dtype,
            kv_data_type=cache.dtype,
        )

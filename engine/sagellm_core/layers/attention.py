"""Attention over the paged KV cache: the interface, and the torch reference, right on every device and the oracle of
faster ones.

A backend prepares its metadata once a step (`prepare`) and is then called once a layer (`attend`, or `attend_fused`
from what the query-key-value matrix gave). The reference batches sequences that bring one token over a padded gather
of their blocks; the others (prompts and chunks of prompts) are taken one by one, each at its exact length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from torch.nn.functional import scaled_dot_product_attention as sdpa

from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.rope import StepRope, rotate
from sagellm_core.layers.scores import attend_scored

AttentionMetadata = Any
"""What a backend's `prepare` returns and its `attend` takes: known to that backend alone."""


@dataclass(slots=True, frozen=True)
class AttentionSpec:
    """Shape of one layer's attention on this rank.

    `window`: a token sees itself and the `window - 1` tokens before it (sliding window); None: all before it.
    `softcap` and `sinks` (heads,) change the scores, see `layers.scores`; the reference alone has them.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = field(default=None, compare=False)

    @property
    def plain(self) -> bool:
        """Whether the scores go into the softmax as they are."""
        return self.softcap is None and self.sinks is None


@dataclass(slots=True, frozen=True)
class HeadNorms:
    """RMSNorm of each query head and each key head before the rotation (Qwen3): weights (head_dim,)."""

    query: Tensor
    key: Tensor
    eps: float


class PagedAttention(ABC):
    """Attention over one engine's cache. A layer's cache is (2, blocks, block_size, kv_heads, head_dim)."""

    def __init__(self, block_size: int, device: torch.device) -> None:
        self.block_size = block_size
        self.device = device

    @abstractmethod
    def prepare(self, plan: SchedulerOutput, dtype: torch.dtype) -> AttentionMetadata:
        """Metadata of a step; `dtype` is that of the queries."""

    @abstractmethod
    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, cache: Tensor, meta: AttentionMetadata, spec: AttentionSpec
    ) -> Tensor:
        """Store keys and values (tokens, kv_heads, head_dim), then attend with queries (tokens, heads, head_dim)."""

    def attend_fused(
        self,
        qkv: Tensor,
        rope: StepRope | None,
        norms: HeadNorms | None,
        cache: Tensor,
        meta: AttentionMetadata,
        spec: AttentionSpec,
    ) -> Tensor:
        """Split, norm, rotate, attend: (tokens, (heads + 2 * kv_heads) * head_dim) to (tokens, heads * head_dim)."""
        tokens, heads, kv_heads = qkv.shape[0], spec.num_heads, spec.num_kv_heads
        parts = qkv.view(tokens, heads + 2 * kv_heads, spec.head_dim)
        turned, value = parts[:, : heads + kv_heads], parts[:, heads + kv_heads :]
        if norms is not None:
            shape = (spec.head_dim,)
            query = rms_norm(turned[:, :heads], shape, norms.query, norms.eps)
            turned = torch.cat((query, rms_norm(turned[:, heads:], shape, norms.key, norms.eps)), dim=1)
        if rope is not None:
            turned = rotate(turned, rope.cos, rope.sin)
        out = self.attend(turned[:, :heads], turned[:, heads:], value, cache, meta, spec)
        return out.reshape(tokens, heads * spec.head_dim)


@dataclass(slots=True)
class Piece:
    """One sequence that brings several tokens: rows `first .. last-1` of the step."""

    first: int
    last: int
    length: int
    blocks: Tensor
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)


@dataclass(slots=True)
class TorchMetadata:
    """What every layer of a step needs. `slots` says where each token's keys and values go.

    The decodes are the rows `decode_rows` (None: all rows); `decode_blocks` is (sequences, blocks) flattened and padded
    with block 0, `decode_lengths` are their lengths with the new token. Masks are made once a step for each window.
    """

    slots: Tensor
    num_decodes: int
    decode_rows: Tensor | None
    decode_blocks: Tensor | None
    decode_lengths: list[int]
    dtype: torch.dtype
    pieces: list[Piece]
    decode_masks: dict[int | None, Tensor | None] = field(default_factory=dict)


class TorchPagedAttention(PagedAttention):
    """Gather the blocks, then `scaled_dot_product_attention`."""

    def prepare(self, plan: SchedulerOutput, dtype: torch.dtype) -> TorchMetadata:
        slots = torch.tensor(plan.slot_mapping, device=self.device)
        if all(length == 1 for length in plan.query_lens):
            members = list(range(len(plan.query_lens)))
            rows = None
            pieces: list[Piece] = []
        else:
            members, at, pieces = self._split(plan)
            rows = torch.tensor(at, device=self.device) if at else None
        if not members:
            return TorchMetadata(slots, 0, None, None, [], dtype, pieces)
        lengths = [plan.context_lens[index] for index in members]
        width = -(-max(lengths) // self.block_size)
        padded = [(plan.block_tables[index] + [0] * width)[:width] for index in members]
        blocks = torch.tensor(padded, device=self.device).flatten()
        return TorchMetadata(slots, len(members), rows, blocks, lengths, dtype, pieces)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, cache: Tensor, meta: TorchMetadata, spec: AttentionSpec
    ) -> Tensor:
        keys, values = cache[0], cache[1]
        keys.view(-1, spec.num_kv_heads, spec.head_dim).index_copy_(0, meta.slots, key)
        values.view(-1, spec.num_kv_heads, spec.head_dim).index_copy_(0, meta.slots, value)
        if meta.decode_blocks is not None and not meta.pieces:
            return self._decode(query, keys, values, meta, spec)
        out = torch.empty_like(query)
        if meta.decode_rows is not None:
            out[meta.decode_rows] = self._decode(query[meta.decode_rows], keys, values, meta, spec)
        for piece in meta.pieces:
            rows = slice(piece.first, piece.last)
            out[rows] = self._attend_piece(query[rows], keys, values, piece, spec)
        return out

    def _decode(self, query: Tensor, keys: Tensor, values: Tensor, meta: TorchMetadata, spec: AttentionSpec) -> Tensor:
        assert meta.decode_blocks is not None
        shape = (meta.num_decodes, -1, spec.num_kv_heads, spec.head_dim)
        key = keys.index_select(0, meta.decode_blocks).view(shape).transpose(1, 2)
        value = values.index_select(0, meta.decode_blocks).view(shape).transpose(1, 2)
        grouped = query.view(meta.num_decodes, spec.num_kv_heads, -1, spec.head_dim)
        mask = self._decode_mask(meta, key.shape[2], spec.window)
        if spec.plain:
            return sdpa(grouped, key, value, attn_mask=mask, scale=spec.scale).reshape(query.shape)
        if mask is None:
            mask = torch.zeros(1, dtype=meta.dtype, device=self.device)
        sinks = None if spec.sinks is None else spec.sinks.view(spec.num_kv_heads, -1, 1)
        out = attend_scored(grouped, key, value, mask, scale=spec.scale, softcap=spec.softcap, sinks=sinks)
        return out.reshape(query.shape)

    def _attend_piece(self, query: Tensor, keys: Tensor, values: Tensor, piece: Piece, spec: AttentionSpec) -> Tensor:
        shape = (1, -1, spec.num_kv_heads, spec.head_dim)
        key = keys.index_select(0, piece.blocks).view(shape)[:, : piece.length].transpose(1, 2)
        value = values.index_select(0, piece.blocks).view(shape)[:, : piece.length].transpose(1, 2)
        heads = query.transpose(0, 1).unsqueeze(0)
        mask = self._piece_mask(piece, spec.window)
        grouped = spec.num_heads != spec.num_kv_heads
        if not spec.plain:
            key, value = (x.repeat_interleave(spec.num_heads // spec.num_kv_heads, dim=1) for x in (key, value))
            sinks = None if spec.sinks is None else spec.sinks.view(-1, 1, 1)
            out = attend_scored(heads, key, value, mask, scale=spec.scale, softcap=spec.softcap, sinks=sinks)
            return out.squeeze(0).transpose(0, 1)
        out = sdpa(heads, key, value, attn_mask=mask, is_causal=mask is None, scale=spec.scale, enable_gqa=grouped)
        return out.squeeze(0).transpose(0, 1)

    def _split(self, plan: SchedulerOutput) -> tuple[list[int], list[int], list[Piece]]:
        """Sequences that bring one token (index, row), and the others as pieces."""
        members: list[int] = []
        rows: list[int] = []
        pieces: list[Piece] = []
        first = 0
        for index, count in enumerate(plan.query_lens):
            if count == 1:
                members.append(index)
                rows.append(first)
            else:
                pieces.append(self._piece(first, count, plan.context_lens[index], plan.block_tables[index]))
            first += count
        return members, rows, pieces

    def _piece(self, first: int, count: int, length: int, table: list[int]) -> Piece:
        used = torch.tensor(table[: -(-length // self.block_size)], device=self.device)
        return Piece(first, first + count, length, used)

    def _piece_mask(self, piece: Piece, window: int | None) -> Tensor | None:
        """True where a row (a new token) sees a column (a token of the context); None: plainly causal."""
        if window not in piece.masks:
            count = piece.last - piece.first
            narrow = window is not None and window < piece.length
            mask = None
            if narrow or count != piece.length:
                mask = torch.ones(count, piece.length, dtype=torch.bool, device=self.device).tril(piece.length - count)
            if mask is not None and narrow and window is not None:
                mask = mask.triu(piece.length - count - window + 1)
            piece.masks[window] = mask
        return piece.masks[window]

    def _decode_mask(self, meta: TorchMetadata, width: int, window: int | None) -> Tensor | None:
        """(sequences, 1, 1, width): 0 where a slot counts, -inf elsewhere; None: every slot counts."""
        if window not in meta.decode_masks:
            lengths = meta.decode_lengths
            narrow = window is not None and max(lengths) > window
            mask = None
            if narrow or any(length != width for length in lengths):
                ends = torch.tensor(lengths, device=self.device)[:, None]
                at = torch.arange(width, device=self.device)
                outside = at >= ends
                if narrow and window is not None:
                    outside |= at < ends - window
                zeros = torch.zeros(outside.shape, dtype=meta.dtype, device=self.device)
                mask = zeros.masked_fill_(outside, float("-inf"))[:, None, None]
            meta.decode_masks[window] = mask
        return meta.decode_masks[window]

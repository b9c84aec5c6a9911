"""Attention over the paged KV cache: the torch reference, right on every device and the oracle of faster ones.

A backend prepares its metadata once a step (`prepare`) and is then called once a layer (`forward`). Sequences that
bring one token are batched together over a padded gather of their blocks; the others (prompts and chunks of prompts)
are taken one by one, each at its exact length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from sagellm_core.engine_core.plan import SchedulerOutput


@dataclass(slots=True)
class Piece:
    """One sequence that brings several tokens: rows `first .. last-1` of the step."""

    first: int
    last: int
    length: int
    blocks: Tensor
    mask: Tensor | None
    causal: bool


@dataclass(slots=True)
class AttentionMetadata:
    """What every layer of a step needs. `slots` says where each token's keys and values go.

    The decodes are the rows `decode_rows` (None: all rows); `decode_blocks` is (sequences, blocks) flattened and padded
    with block 0; `decode_mask` (sequences, 1, 1, padded length) is 0 where a slot counts and -inf elsewhere.
    """

    slots: Tensor
    num_decodes: int
    decode_rows: Tensor | None
    decode_blocks: Tensor | None
    decode_mask: Tensor | None
    pieces: list[Piece]


class TorchPagedAttention:
    """Gather the blocks, then `scaled_dot_product_attention`.

    A layer's cache is (2, blocks, block_size, kv_heads, head_dim): keys and values.
    """

    def __init__(self, num_heads: int, num_kv_heads: int, head_dim: int, block_size: int, device: torch.device) -> None:
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.block_size = block_size
        self.device = device
        self.grouped = num_heads != num_kv_heads

    def prepare(self, plan: SchedulerOutput, dtype: torch.dtype) -> AttentionMetadata:
        """Metadata of a step; `dtype` is that of the queries."""
        slots = torch.tensor(plan.slot_mapping, device=self.device)
        if all(length == 1 for length in plan.query_lens):
            members = list(range(len(plan.query_lens)))
            rows = None
            pieces: list[Piece] = []
        else:
            members, at, pieces = self._split(plan)
            rows = torch.tensor(at, device=self.device) if at else None
        if not members:
            return AttentionMetadata(slots, 0, None, None, None, pieces)
        lengths = [plan.context_lens[index] for index in members]
        width = -(-max(lengths) // self.block_size)
        padded = [(plan.block_tables[index] + [0] * width)[:width] for index in members]
        blocks = torch.tensor(padded, device=self.device).flatten()
        mask = self._padding_mask(lengths, width * self.block_size, dtype)
        return AttentionMetadata(slots, len(members), rows, blocks, mask, pieces)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, cache: Tensor, meta: AttentionMetadata) -> Tensor:
        """Store keys and values (tokens, kv_heads, head_dim), attend with queries (tokens, heads, head_dim)."""
        keys, values = cache[0], cache[1]
        keys.view(-1, self.num_kv_heads, self.head_dim).index_copy_(0, meta.slots, key)
        values.view(-1, self.num_kv_heads, self.head_dim).index_copy_(0, meta.slots, value)
        if meta.decode_blocks is not None and not meta.pieces:
            return self._decode(query, keys, values, meta)
        out = torch.empty_like(query)
        if meta.decode_rows is not None:
            out[meta.decode_rows] = self._decode(query[meta.decode_rows], keys, values, meta)
        for piece in meta.pieces:
            out[piece.first : piece.last] = self._attend_piece(query[piece.first : piece.last], keys, values, piece)
        return out

    def _decode(self, query: Tensor, keys: Tensor, values: Tensor, meta: AttentionMetadata) -> Tensor:
        assert meta.decode_blocks is not None
        shape = (meta.num_decodes, -1, self.num_kv_heads, self.head_dim)
        key = keys.index_select(0, meta.decode_blocks).view(shape).transpose(1, 2)
        value = values.index_select(0, meta.decode_blocks).view(shape).transpose(1, 2)
        grouped = query.view(meta.num_decodes, self.num_kv_heads, -1, self.head_dim)
        return sdpa(grouped, key, value, attn_mask=meta.decode_mask).reshape(query.shape)

    def _attend_piece(self, query: Tensor, keys: Tensor, values: Tensor, piece: Piece) -> Tensor:
        shape = (1, -1, self.num_kv_heads, self.head_dim)
        key = keys.index_select(0, piece.blocks).view(shape)[:, : piece.length].transpose(1, 2)
        value = values.index_select(0, piece.blocks).view(shape)[:, : piece.length].transpose(1, 2)
        heads = query.transpose(0, 1).unsqueeze(0)
        out = sdpa(heads, key, value, attn_mask=piece.mask, is_causal=piece.causal, enable_gqa=self.grouped)
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
        whole = count == length
        mask = None
        if not whole:
            mask = torch.ones(count, length, dtype=torch.bool, device=self.device).tril(length - count)
        return Piece(first, first + count, length, used, mask, causal=whole)

    def _padding_mask(self, lengths: list[int], width: int, dtype: torch.dtype) -> Tensor | None:
        if all(length == width for length in lengths):
            return None
        ends = torch.tensor(lengths, device=self.device)
        outside = torch.arange(width, device=self.device) >= ends[:, None]
        return torch.zeros(outside.shape, dtype=dtype, device=self.device).masked_fill_(outside, float("-inf"))[
            :, None, None
        ]

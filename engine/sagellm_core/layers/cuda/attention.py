"""Paged attention by our Triton kernels: split-context decode, variable-length prefill; all of it can be recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from sagellm_core.engine_core.plan import SchedulerOutput
from sagellm_core.layers.attention import AttentionSpec, HeadNorms, PagedAttention
from sagellm_core.layers.cuda.kernels import (
    DecodeCall,
    combine,
    decode_fused,
    decode_rotated,
    rotate_and_store,
)
from sagellm_core.layers.cuda.metadata import StepMetadata, splits_for, step_metadata
from sagellm_core.layers.cuda.prompts import PromptKernel, TritonPrompts
from sagellm_core.layers.rope import StepRope


class TritonPagedAttention(PagedAttention):
    """`kv_heads` and `processors` (of the device) decide how often a decode's context is split.

    `prompts` attends for sequences that bring several tokens, where their rows follow each other.
    """

    def __init__(self, block_size: int, device: torch.device, kv_heads: int, processors: int) -> None:
        super().__init__(block_size, device)
        self.kv_heads = kv_heads
        self.processors = processors
        self.prompts: PromptKernel = TritonPrompts()
        self._ours = TritonPrompts()

    def prepare(self, plan: SchedulerOutput, dtype: torch.dtype) -> StepMetadata:
        return step_metadata(plan, self.device, self.kv_heads, self.processors)

    def recorded(self, call: DecodeCall, longest: int) -> StepMetadata:
        """Metadata of decode steps whose tensors stay where they are; contexts up to `longest` tokens."""
        return StepMetadata(call.slots, call, None, True, self.splits(call.lengths.shape[0], longest))

    def splits(self, sequences: int, longest: int) -> int:
        """Pieces that the contexts of so many decodes are cut into."""
        return splits_for(sequences * self.kv_heads, longest, self.processors)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, cache: Tensor, meta: StepMetadata, spec: AttentionSpec
    ) -> Tensor:
        store(key, value, cache, meta.long_slots, spec)
        query = query.contiguous()
        return self._attend(query, cache, meta, spec, torch.empty_like(query))

    def attend_fused(
        self,
        qkv: Tensor,
        rope: StepRope | None,
        norms: HeadNorms | None,
        cache: Tensor,
        meta: StepMetadata,
        spec: AttentionSpec,
    ) -> Tensor:
        if rope is not None and rope.cos_table.shape[-1] != spec.head_dim:
            return super().attend_fused(qkv, rope, norms, cache, meta, spec)
        shape = (qkv.shape[0], spec.num_heads, spec.head_dim)
        out = torch.empty(shape, dtype=qkv.dtype, device=qkv.device)
        if meta.plain and meta.decodes is not None:
            room = meta.room(spec)
            decode_fused(qkv, rope, norms, cache, meta.decodes, room, spec)
            combine(room, meta.decodes, out)
        else:
            query = torch.empty_like(out)
            rotate_and_store(qkv, rope, norms, meta.slots, cache, query, spec)
            self._attend(query, cache, meta, spec, out)
        return out.view(qkv.shape[0], -1)

    def _attend(self, query: Tensor, cache: Tensor, meta: StepMetadata, spec: AttentionSpec, out: Tensor) -> Tensor:
        if meta.decodes is not None:
            room = meta.room(spec)
            decode_rotated(query, cache, meta.decodes, room, spec)
            combine(room, meta.decodes, out)
        if meta.pieces is not None:
            prompts = self.prompts if meta.pieces.follow else self._ours
            prompts(query, cache, out, meta.pieces, spec)
        return out


def store(key: Tensor, value: Tensor, cache: Tensor, slots: Tensor, spec: AttentionSpec) -> None:
    """Keys and values (tokens, kv_heads, head_dim) into their slots (tokens,) int64."""
    cache[0].view(-1, spec.num_kv_heads, spec.head_dim).index_copy_(0, slots, key)
    cache[1].view(-1, spec.num_kv_heads, spec.head_dim).index_copy_(0, slots, value)

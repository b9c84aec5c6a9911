"""A decoder of the Llama kind in as few launches as it takes.

With many rows, matrix products are the library's, and what stands between them is one launch each. With few rows (a
decode step of a small batch), everything is folded into five launches a layer:

    norm · query-key-value product | rotate · store · attend | (weigh the splits) · output product · residual |
    norm · gate and up product · SiLU gate | down product · residual
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sagellm_core.layers.attention import PagedAttention
from sagellm_core.layers.cuda.kernels import (
    FEW_ROWS,
    GemvTiles,
    Partials,
    add_norm,
    combine,
    decode_fused,
    few_rows,
    silu_mul,
)
from sagellm_core.layers.cuda.linear import CudaLinear
from sagellm_core.layers.cuda.metadata import StepMetadata
from sagellm_core.layers.linear import LinearOp
from sagellm_core.layers.rope import StepRope
from sagellm_core.models.base import CausalLM
from sagellm_core.models.decoder import Decoder, DecoderLayer, Norm

_SILU = ("silu", "swish")


class FusedDecoder:
    """A `Decoder`'s parts under other operators; see `fusible` for which.

    `pdl`: launches overlap (Hopper and later). `tiles`: how the products of few rows are cut, by kind of matrix.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.config = decoder.config
        self.pdl = False
        self.tiles: dict[str, GemvTiles] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    @property
    def num_kv_heads(self) -> int:
        return self.decoder.num_kv_heads

    @property
    def num_layers(self) -> int:
        return self.decoder.num_layers

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: object,
    ) -> Tensor:
        """Hidden states (tokens, hidden), on the last stage normalised; `inputs` as in `CausalLM`."""
        decoder = self.decoder
        x = decoder.embedded(inputs, positions)
        if x is inputs:
            x = x.clone()
        rope = None if decoder.rope is None else StepRope(*decoder.rope, positions)
        if isinstance(meta, StepMetadata) and meta.plain and x.shape[0] <= FEW_ROWS and self.has_plain_matrices:
            return self._few(x, rope, caches, meta)
        return self._many(x, rope, caches, attention, meta)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary) of rows of the last stage's hidden states."""
        head = self.decoder.head
        if not isinstance(head, CudaLinear) or hidden.shape[0] > FEW_ROWS:
            return self.decoder.logits(hidden)
        out = torch.empty((hidden.shape[0], head.outputs), dtype=hidden.dtype, device=hidden.device)
        tiles = self.tiles.get("head")
        few_rows(hidden, head.weight, out, scales=head.scales, bias=head.bias, tiles=tiles, pdl=self.pdl)
        return out

    @property
    def has_plain_matrices(self) -> bool:
        """Whether every matrix is one that the products of few rows can read (not shared by ranks, not adapted)."""
        return all(isinstance(op, CudaLinear) for layer in self.decoder.layers for op in _matrices(layer))

    def _many(
        self, x: Tensor, rope: StepRope | None, caches: list[Tensor], attention: PagedAttention, meta: object
    ) -> Tensor:
        """`x` is added to in place."""
        normed = torch.empty_like(x)
        delta: Tensor | None = None
        for layer, cache in zip(self.decoder.layers, caches, strict=True):
            self._norm(x, delta, layer.attention_norm, normed)
            mixed = attention.attend_fused(layer.qkv(normed), rope, layer.head_norms, cache, meta, layer.spec)
            self._norm(x, layer.output(mixed), layer.mlp_norm, normed)
            delta = layer.down(silu_mul(layer.gate_up(normed)))
        if self.decoder.norm is None:
            return x if delta is None else x + delta
        self._norm(x, delta, self.decoder.norm, normed)
        return normed

    def _few(self, x: Tensor, rope: StepRope | None, caches: list[Tensor], meta: StepMetadata) -> Tensor:
        """`x` is added to in place. One row reads the splits of attention as they are; more have them weighed first."""
        assert meta.decodes is not None
        rows, pdl = x.shape[0], self.pdl
        for layer, cache in zip(self.decoder.layers, caches, strict=True):
            spec, room = layer.spec, meta.room(layer.spec)
            qkv = x.new_empty(rows, (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim)
            self._product("qkv", x, layer.qkv, qkv, norm=layer.attention_norm)
            decode_fused(qkv, rope, layer.head_norms, cache, meta.decodes, room, spec, pdl=pdl)
            if rows == 1:
                self._product("output", room, layer.output, x, add=True)
            else:
                mixed = x.new_empty(rows, spec.num_heads * spec.head_dim)
                combine(room, meta.decodes, mixed, pdl=pdl)
                self._product("output", mixed, layer.output, x, add=True)
            inner = x.new_empty(rows, self.config.intermediate_size)
            self._product("gate_up", x, layer.gate_up, inner, norm=layer.mlp_norm, gated=True)
            self._product("down", inner, layer.down, x, add=True)
        if self.decoder.norm is None:
            return x
        normed = torch.empty_like(x)
        self._norm(x, None, self.decoder.norm, normed)
        return normed

    def _product(
        self,
        kind: str,
        x: Tensor | Partials,
        op: LinearOp,
        out: Tensor,
        *,
        norm: Norm | None = None,
        gated: bool = False,
        add: bool = False,
    ) -> None:
        assert isinstance(op, CudaLinear)
        few_rows(
            x,
            op.weight,
            out,
            scales=op.scales,
            bias=op.bias,
            norm=None if norm is None else norm.weight,
            eps=0.0 if norm is None else norm.eps,
            gated=gated,
            add=add,
            tiles=self.tiles.get(kind),
            pdl=self.pdl,
        )

    def _norm(self, x: Tensor, delta: Tensor | None, norm: Norm, out: Tensor) -> None:
        add_norm(x, delta, norm.weight, norm.eps, out, pdl=self.pdl and x.shape[0] <= FEW_ROWS)


def _matrices(layer: DecoderLayer) -> Iterator[LinearOp]:
    return iter((layer.qkv, layer.output, layer.gate_up, layer.down))


def fusible(model: CausalLM) -> bool:
    """Whether a model is a `Decoder` with RMSNorm, a SiLU gate and rotations as wide as a head (or none)."""
    if not isinstance(model, Decoder) or not model.layers:
        return False
    norms = [norm for layer in model.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    norms += [] if model.norm is None else [model.norm]
    whole = model.rope is None or model.rope[0].shape[-1] == model.layers[0].spec.head_dim
    return whole and model.config.gated and model.config.activation in _SILU and all(n.bias is None for n in norms)

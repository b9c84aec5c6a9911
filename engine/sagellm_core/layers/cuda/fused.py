"""A decoder of the Llama kind in as few launches as it takes.

With many rows, matrix products are the library's, and what stands between them is one launch each. With few rows (a
decode step of a small batch), everything is folded into five launches a layer:

    norm · query-key-value product | rotate · store · attend | (weigh the splits) · output product · residual |
    norm · gate and up product · SiLU gate | down product · residual
"""

from __future__ import annotations

from dataclasses import dataclass

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
from sagellm_core.layers.rope import StepRope
from sagellm_core.models.base import CausalLM
from sagellm_core.models.decoder import Decoder, Norm

_SILU = ("silu", "swish")


@dataclass(slots=True, frozen=True)
class Product:
    """A product of few rows with what is folded into it. `kind` is that of its matrix, one a place in a layer."""

    kind: str
    op: CudaLinear
    norm: Norm | None = None
    gated: bool = False
    add: bool = False

    @property
    def inputs(self) -> int:
        return self.op.weight.shape[1]

    @property
    def outputs(self) -> int:
        return self.op.outputs // 2 if self.gated else self.op.outputs

    def __call__(self, x: Tensor | Partials, out: Tensor, tiles: GemvTiles | None, *, pdl: bool = False) -> None:
        """Into `out` (rows, outputs), or onto it."""
        op, norm = self.op, self.norm
        few_rows(
            x,
            op.weight,
            out,
            scales=op.scales,
            bias=op.bias,
            norm=None if norm is None else norm.weight,
            eps=0.0 if norm is None else norm.eps,
            gated=self.gated,
            add=self.add,
            tiles=tiles,
            pdl=pdl,
        )


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
        out = hidden.new_empty(hidden.shape[0], head.outputs)
        self._run(Product("head", head), hidden, out)
        return out

    @property
    def has_plain_matrices(self) -> bool:
        """Whether every matrix is one that the products of few rows can read (not shared by ranks, not adapted)."""
        matrices = (op for each in self.decoder.layers for op in (each.qkv, each.output, each.gate_up, each.down))
        return all(isinstance(op, CudaLinear) for op in matrices)

    def products(self, index: int) -> list[Product]:
        """The products of a layer in order, and the head where that can be read like them; all matrices are plain."""
        layer = self.decoder.layers[index]
        kinds = ("qkv", "output", "gate_up", "down", "head")
        ops = [layer.qkv, layer.output, layer.gate_up, layer.down, self.decoder.head]
        norms = {"qkv": layer.attention_norm, "gate_up": layer.mlp_norm}
        return [
            Product(kind, op, norms.get(kind), gated=kind == "gate_up", add=kind in ("output", "down"))
            for kind, op in zip(kinds, ops, strict=True)
            if isinstance(op, CudaLinear)
        ]

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
        for index, (layer, cache) in enumerate(zip(self.decoder.layers, caches, strict=True)):
            qkv_product, output, gate_up, down = self.products(index)[:4]
            spec, room = layer.spec, meta.room(layer.spec)
            qkv = x.new_empty(rows, qkv_product.outputs)
            self._run(qkv_product, x, qkv)
            decode_fused(qkv, rope, layer.head_norms, cache, meta.decodes, room, spec, pdl=pdl)
            if rows == 1:
                self._run(output, room, x)
            else:
                mixed = x.new_empty(rows, output.inputs)
                combine(room, meta.decodes, mixed, pdl=pdl)
                self._run(output, mixed, x)
            inner = x.new_empty(rows, gate_up.outputs)
            self._run(gate_up, x, inner)
            self._run(down, inner, x)
        if self.decoder.norm is None:
            return x
        normed = torch.empty_like(x)
        self._norm(x, None, self.decoder.norm, normed)
        return normed

    def _run(self, product: Product, x: Tensor | Partials, out: Tensor) -> None:
        product(x, out, self.tiles.get(product.kind), pdl=self.pdl)

    def _norm(self, x: Tensor, delta: Tensor | None, norm: Norm, out: Tensor) -> None:
        add_norm(x, delta, norm.weight, norm.eps, out, pdl=self.pdl and x.shape[0] <= FEW_ROWS)


def fusible(model: CausalLM) -> bool:
    """Whether a model is a `Decoder` with RMSNorm, a SiLU gate and rotations as wide as a head (or none)."""
    if not isinstance(model, Decoder) or not model.layers:
        return False
    norms = [norm for layer in model.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    norms += [] if model.norm is None else [model.norm]
    whole = model.rope is None or model.rope[0].shape[-1] == model.layers[0].spec.head_dim
    return whole and model.config.gated and model.config.activation in _SILU and all(n.bias is None for n in norms)

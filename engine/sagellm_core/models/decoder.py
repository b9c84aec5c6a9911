"""The decoder of every own family: pre-norm blocks of grouped-query attention and an MLP, described by `ModelConfig`.

Llama (Touvron et al. 2023), Mistral, Qwen2, Qwen3: RMSNorm, rotary positions, SwiGLU; GPT-2 (Radford et al. 2019):
LayerNorm, learned positions, GELU. Queries, keys and values come from one matrix, gate and up from another. Plain
tensors and functions: at a few microseconds an operator, calling modules would cost more than the arithmetic of a small
model. `Backend.specialise` may take the parts and run them in another form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, relu, rms_norm, silu

from sagellm_core.layers.attention import AttentionMetadata, AttentionSpec, HeadNorms, PagedAttention
from sagellm_core.layers.linear import LinearOp
from sagellm_core.layers.rope import StepRope
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.shard import Shard

_TANH_GELU = partial(gelu, approximate="tanh")
ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_fast": _TANH_GELU,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": relu,
    "silu": silu,
    "swish": silu,
}
"""By the names of `hidden_act`; the same names as `models.config.ACTIVATIONS`."""


@dataclass(slots=True)
class Norm:
    """RMSNorm (Zhang and Sennrich 2019), or LayerNorm where there is a bias; over the last dimension."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return rms_norm(x, self.weight.shape, self.weight, self.eps)
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(slots=True)
class Embedding:
    """Vectors of tokens. A rank of several has rows `first`, `first + 1`, …; the others come from the others."""

    table: Tensor
    first: int
    shard: Shard

    def __call__(self, ids: Tensor) -> Tensor:
        if self.shard.group.size == 1:
            return embedding(ids, self.table)
        local = ids - self.first
        elsewhere = (local < 0) | (local >= self.table.shape[0])
        found = embedding(local.masked_fill(elsewhere, 0), self.table).masked_fill(elsewhere[:, None], 0)
        return self.shard.group.all_reduce(found)


@dataclass(slots=True)
class DecoderLayer:
    """One block, on this rank. `gate_up` gives gate and up side by side, or up alone where the MLP is not gated."""

    attention_norm: Norm
    qkv: LinearOp
    head_norms: HeadNorms | None
    output: LinearOp
    mlp_norm: Norm
    gate_up: LinearOp
    down: LinearOp
    spec: AttentionSpec


@dataclass(slots=True)
class Decoder:
    """Token ids in, hidden states or logits out, keys and values in the paged cache.

    `embed` and `learned` (vectors of positions: GPT-2) are on the first stage, `norm` and `head` on the last; `rope`
    are the tables (max_position, 1, head_dim) of cosines and signed sines. `layers` are those of this stage.
    """

    config: ModelConfig
    shard: Shard
    dtype: torch.dtype
    layers: list[DecoderLayer]
    embed: Callable[[Tensor], Tensor] | None
    learned: Tensor | None
    rope: tuple[Tensor, Tensor] | None
    norm: Norm | None
    head: LinearOp | None

    @property
    def num_kv_heads(self) -> int:
        return self.layers[0].spec.num_kv_heads

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: AttentionMetadata,
    ) -> Tensor:
        """Hidden states (tokens, hidden), on the last stage normalised; `inputs` as in `CausalLM`."""
        x = self.embedded(inputs, positions)
        rope = None if self.rope is None else StepRope(*self.rope, positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            qkv = layer.qkv(layer.attention_norm(x))
            x = x + layer.output(attention.attend_fused(qkv, rope, layer.head_norms, cache, meta, layer.spec))
            x = x + self.mlp(layer, layer.mlp_norm(x))
        return x if self.norm is None else self.norm(x)

    def embedded(self, inputs: Tensor, positions: Tensor) -> Tensor:
        """What the first layer of this stage takes: vectors of tokens (and positions), or the stage before's output."""
        if self.embed is None:
            return inputs
        x = self.embed(inputs)
        return x if self.learned is None else x + embedding(positions, self.learned)

    def mlp(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        act = ACTIVATION[self.config.activation]
        if not self.config.gated:
            return layer.down(act(layer.gate_up(x)))
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(act(gate) * up)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary) of rows of the last stage's hidden states."""
        assert self.head is not None, "the last stage has the head"
        return self.head(hidden)

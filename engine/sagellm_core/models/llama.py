"""The Llama family: pre-norm decoder, grouped-query attention, rotary positions, SwiGLU (Touvron et al. 2023).

Queries, keys and values come from one matrix, gate and up from another. Plain tensors and functions: at a few
microseconds an operator, calling modules would cost more than the arithmetic of a small model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding, rms_norm, silu

from sagellm_core.backends.base import Backend
from sagellm_core.layers.attention import AttentionMetadata, AttentionSpec, PagedAttention
from sagellm_core.layers.linear import LinearOp
from sagellm_core.layers.rope import StepRope, rope_tables
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.weights import WeightReader


@dataclass(slots=True)
class LlamaLayer:
    attention_norm: Tensor
    qkv: LinearOp
    output: LinearOp
    mlp_norm: Tensor
    gate_up: LinearOp
    down: LinearOp


class Llama:
    """Token ids in, logits out, keys and values in the paged cache."""

    def __init__(
        self,
        config: ModelConfig,
        embed: Tensor,
        layers: list[LlamaLayer],
        norm: Tensor,
        head: LinearOp,
        rope: tuple[Tensor, Tensor],
    ) -> None:
        self.config = config
        self.embed = embed
        self.layers = layers
        self.norm = norm
        self.head = head
        self.cos, self.sin = (table.to(embed.dtype) for table in rope)

        self.spec = AttentionSpec(config.num_heads, config.num_kv_heads, config.head_dim, config.head_dim**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.dtype

    @property
    def num_kv_heads(self) -> int:
        return self.spec.num_kv_heads

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
        """Normalised hidden states (tokens, hidden)."""
        rope = StepRope(self.cos, self.sin, positions)
        x = embedding(inputs, self.embed)
        for layer, cache in zip(self.layers, caches, strict=True):
            qkv = layer.qkv(self._norm(x, layer.attention_norm))
            x = x + layer.output(attention.attend_fused(qkv, rope, None, cache, meta, self.spec))
            x = x + self._mlp(layer, self._norm(x, layer.mlp_norm))
        return self._norm(x, self.norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary)."""
        return self.head(hidden)

    def _mlp(self, layer: LlamaLayer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(silu(gate) * up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, (self.config.hidden_size,), weight, self.config.rms_norm_eps)


def load_llama(
    config: ModelConfig, reader: WeightReader, dtype: torch.dtype, backend: Backend, max_position: int
) -> Llama:
    """Read a Llama from Hugging Face names. Raises ModelLoadError on missing or misshapen tensors."""

    device = backend.device

    def tensor(name: str, *shape: int) -> Tensor:
        target = torch.empty(shape, dtype=dtype, device=device)
        reader.fill(target, name)
        return target

    embed = tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    tied = config.tie_word_embeddings or "lm_head.weight" not in reader
    head = embed if tied else tensor("lm_head.weight", config.vocab_size, config.hidden_size)
    return Llama(
        config,
        embed,
        [_load_layer(config, reader, index, dtype, backend) for index in range(config.num_layers)],
        tensor("model.norm.weight", config.hidden_size),
        backend.linear(head, shared=tied),
        rope_tables(config.rope, config.head_dim, max_position, device),
    )


def _load_layer(
    config: ModelConfig, reader: WeightReader, index: int, dtype: torch.dtype, backend: Backend
) -> LlamaLayer:
    device = backend.device
    prefix = f"model.layers.{index}"
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim

    def fused(names: tuple[str, ...], rows: tuple[int, ...], columns: int, with_bias: bool) -> LinearOp:
        paths = [f"{prefix}.{name}" for name in names]
        weight = reader.stack([f"{path}.weight" for path in paths], rows, columns, dtype, device)
        bias = reader.stack([f"{path}.bias" for path in paths], rows, 0, dtype, device) if with_bias else None
        return backend.linear(weight, bias)

    def norm(name: str) -> Tensor:
        return reader.stack([f"{prefix}.{name}.weight"], [hidden], 0, dtype, device)

    attention = tuple(f"self_attn.{part}_proj" for part in "qkv")
    return LlamaLayer(
        attention_norm=norm("input_layernorm"),
        qkv=fused(attention, (queries, keys, keys), hidden, config.attention_bias),
        output=fused(("self_attn.o_proj",), (hidden,), queries, config.attention_bias),
        mlp_norm=norm("post_attention_layernorm"),
        gate_up=fused(("mlp.gate_proj", "mlp.up_proj"), (inner, inner), hidden, config.mlp_bias),
        down=fused(("mlp.down_proj",), (hidden,), inner, config.mlp_bias),
    )

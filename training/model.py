"""A small Llama, written for training on a CPU core: batched matmuls, bf16 products, fp32 residual stream.

Parameter names are those of ``transformers``' ``LlamaForCausalLM``, so that a state dict is an export.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The architecture, in ``transformers``' terms."""

    vocab_size: int = 3072
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 5
    num_attention_heads: int = 6
    num_key_value_heads: int = 3
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


class Norm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def _matrix(rows: int, columns: int, scale: float = 1.0) -> nn.Linear:
    linear = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(linear.weight, std=scale / math.sqrt(columns))
    return linear


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.num_key_value_heads * shape.head_dim
        self.q_proj = _matrix(shape.hidden_size, shape.hidden_size)
        self.k_proj = _matrix(kv, shape.hidden_size)
        self.v_proj = _matrix(kv, shape.hidden_size)
        self.o_proj = _matrix(shape.hidden_size, shape.hidden_size, scale=0.2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """``x`` is (batch, time, hidden) in the computing dtype; ``mask`` is added to the scores."""
        batch, time, hidden = x.shape
        heads, groups, dim = self.shape.num_attention_heads, self.shape.num_key_value_heads, self.shape.head_dim
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]).to(x.dtype)
        qkv = functional.linear(x, weight).view(batch, time, heads + 2 * groups, dim).transpose(1, 2)
        turned = rotate(qkv[:, : heads + groups], cos, sin)
        q = turned[:, :heads].reshape(batch, groups, heads // groups, time, dim)
        k = turned[:, heads:].unsqueeze(2)
        v = qkv[:, heads + groups :].unsqueeze(2)
        scores = torch.matmul(q * dim**-0.5, k.transpose(-1, -2)) + mask
        out = torch.matmul(torch.softmax(scores, dim=-1), v)
        out = out.reshape(batch, heads, time, dim).transpose(1, 2).reshape(batch, time, hidden)
        return functional.linear(out, self.o_proj.weight.to(x.dtype))


class Mlp(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = _matrix(shape.intermediate_size, shape.hidden_size)
        self.up_proj = _matrix(shape.intermediate_size, shape.hidden_size)
        self.down_proj = _matrix(shape.hidden_size, shape.intermediate_size, scale=0.2)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = functional.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]).to(x.dtype)).chunk(
            2, dim=-1
        )
        return functional.linear(functional.silu(gate) * up, self.down_proj.weight.to(x.dtype))


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual path."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        dtype = mask.dtype
        attended: Tensor = self.self_attn(self.input_layernorm(x).to(dtype), cos, sin, mask)
        x = x + attended.to(x.dtype)
        thought: Tensor = self.mlp(self.post_attention_layernorm(x).to(dtype))
        return x + thought.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021), halves paired as in ``transformers``."""
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cos + torch.cat([-second, first], dim=-1) * sin
    return turned


class TinyLlama(nn.Module):
    """The whole model; its output embedding is its input embedding."""

    cos: Tensor
    sin: Tensor
    causal: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        frequency = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angle = torch.outer(torch.arange(shape.max_position_embeddings).float(), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        causal = torch.full((shape.max_position_embeddings, shape.max_position_embeddings), -1e9).triu(1)
        self.register_buffer("causal", causal, persistent=False)

    def hidden(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Final hidden states (batch, time, hidden) of right-padded ids, matrix products in ``dtype``."""
        time = ids.shape[1]
        cos, sin = self.cos[:time].to(dtype), self.sin[:time].to(dtype)
        mask = self.causal[:time, :time].to(dtype)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return torch.as_tensor(self.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for hidden states in any leading shape."""
        return functional.linear(hidden, self.embed_tokens.weight.to(hidden.dtype))

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))

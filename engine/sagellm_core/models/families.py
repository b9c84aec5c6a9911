"""The families that this engine runs itself: what their `config.json` leaves out, and how they name their weights.

One description (`ModelConfig`) and one decoder (`decoder.py`) serve them all; a family is a row of a table. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True)
class Names:
    """Names of a checkpoint's tensors, without `.weight` and `.bias`; those of a layer follow `layer.<index>.`.

    `qkv` and `gate_up` name one tensor where the checkpoint has them fused, in that order. `base` is the prefix that
    checkpoints of the bare decoder leave out. `transposed`: a layer's matrices are stored as (inputs, outputs).
    """

    base: str = "model."
    embed: str = "model.embed_tokens"
    positions: str = ""
    layer: str = "model.layers"
    attention_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    output: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    norm: str = "model.norm"
    head: str = "lm_head"
    transposed: bool = False


@dataclass(slots=True, frozen=True)
class Family:
    """One family. `defaults` is what `transformers` takes where `config.json` is silent, by the keys of Llama's.

    `renamed` maps the family's own keys to those.
    """

    names: Names = field(default_factory=Names)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def complete(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """`config.json` with every key under Llama's name and the family's defaults filled in."""
        values = {self.renamed.get(key, key): value for key, value in raw.items()}
        return {**self.defaults, **values}


_GPT2_NAMES = Names(
    base="transformer.",
    embed="transformer.wte",
    positions="transformer.wpe",
    layer="transformer.h",
    attention_norm="ln_1",
    qkv=("attn.c_attn",),
    output="attn.c_proj",
    mlp_norm="ln_2",
    gate_up=("mlp.c_fc",),
    down="mlp.c_proj",
    norm="transformer.ln_f",
    transposed=True,
)
_GPT2_DEFAULTS = {
    "max_position_embeddings": 1024,
    "layer_norm_epsilon": 1e-5,
    "hidden_act": "gelu_new",
    "tie_word_embeddings": True,
    "qkv_bias": True,
    "attention_bias": True,
    "mlp_bias": True,
    "layer_norm": True,
    "learned_positions": True,
    "gated": False,
}
_GPT2_KEYS = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "activation_function": "hidden_act",
}
_QWEN = {"max_position_embeddings": 32_768, "sliding_window": 4096, "max_window_layers": 28}

FAMILIES: dict[str, Family] = {
    "GPT2LMHeadModel": Family(_GPT2_NAMES, _GPT2_DEFAULTS, _GPT2_KEYS),
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(
        defaults={"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096}
    ),
    "Qwen2ForCausalLM": Family(defaults={**_QWEN, "qkv_bias": True, "use_sliding_window": False}),
    "Qwen3ForCausalLM": Family(
        defaults={**_QWEN, "head_dim": 128, "use_sliding_window": False, "head_norms": True},
    ),
}
"""By the name that `architectures` has in `config.json`."""

MODEL_TYPES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The architecture of a `config.json` that names a `model_type` alone."""

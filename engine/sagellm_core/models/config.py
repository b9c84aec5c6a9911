"""A model folder's `config.json` and `generation_config.json`, as the engine needs them. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from math import gcd
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sagellm_core.errors import EngineError, ModelLoadError, invalid
from sagellm_core.models.families import FAMILIES, MODEL_TYPES
from sagellm_core.models.hf_config import read_shape
from sagellm_core.models.rope_config import RopeConfig, needs_transformers, reach, read_rope
from sagellm_protocol.sampling import SamplingParams

_MOST = 1 << 31
_MOST_LAYERS = 10_000
ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")


@dataclass(slots=True, frozen=True)
class ModelConfig:
    """Shape of a decoder: one description for every family.

    `rope` is None where positions are learned vectors. `head_norms`: each query and key head is normalised (Qwen3).
    `layer_norm`: LayerNorm with bias instead of RMSNorm. `gated`: the MLP is `down(act(gate) * up)`, else
    `down(act(up))`. `windows`: the sliding window of each layer, None where it sees everything before it; empty: no
    layer has one. `scale_by_layer`: attention scores are also divided by the layer's number from 1 (a GPT-2 option).
    `foreign`: the model runs through `transformers`' own code, and only the sizes are described here.
    `plain_attention`: no layer changes its scores before the softmax, see `layers.scores`.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    norm_eps: float
    rope: RopeConfig | None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    layer_norm: bool = False
    gated: bool = True
    activation: str = "silu"
    windows: tuple[int | None, ...] = ()
    scale_by_layer: bool = False
    dtype: str = "float32"
    foreign: bool = False
    plain_attention: bool = True

    @property
    def num_parameters(self) -> int:
        """Size of the model, tied embeddings counted once, biases and norms left out."""
        heads = (2 * self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        layer = self.hidden_size * (heads + (3 if self.gated else 2) * self.intermediate_size)
        tables = (1 if self.tie_word_embeddings else 2) * self.vocab_size
        if self.rope is None and not self.foreign:
            tables += self.max_position
        return self.num_layers * layer + tables * self.hidden_size

    def window(self, layer: int) -> int | None:
        """The sliding window of a layer."""
        return self.windows[layer] if self.windows else None


@dataclass(slots=True, frozen=True)
class GenerationDefaults:
    """What `generation_config.json` says: token ids that end an answer, and sampling defaults."""

    eos_token_ids: tuple[int, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; ModelLoadError when it is torn or not an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"Cannot read {path}", cause=str(error)) from error
    if not isinstance(data, dict):
        raise ModelLoadError(f"Cannot read {path}", cause="it does not hold a JSON object")
    return data


def read_model_config(folder: Path) -> ModelConfig:
    """Shape of the model in this folder. Raises ModelLoadError that names the field or the architecture at fault."""
    path = folder / "config.json"
    raw = read_json(path)
    architecture = _architecture(raw)
    _refuse_quantized(raw, folder)
    foreign = architecture not in FAMILIES or needs_transformers(raw)
    values = read_shape(architecture, folder) if foreign else FAMILIES[architecture].complete(raw)
    try:
        config = _described(architecture, values, folder)
    except KeyError as error:
        raise ModelLoadError(f"{path} has no {error.args[0]}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelLoadError(f"{path} is not usable", cause=str(error)) from error
    wrong = _wrong_shape(config)
    if wrong:
        raise ModelLoadError(f"{path} is not usable", cause=wrong)
    return replace(config, foreign=foreign)


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """End-of-text ids from generation_config.json or config.json, and sampling defaults where it says to sample.

    Raises ModelLoadError that names the field: a default that no request could run with is found here, not by users.
    """
    path = folder / "generation_config.json"
    raw = read_json(path) if path.is_file() else {}
    eos = raw.get("eos_token_id", read_json(folder / "config.json").get("eos_token_id"))
    ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
    if not all(type(token) is int for token in ids):
        raise ModelLoadError(f"{path} is not usable", cause=f"eos_token_id {eos!r} is neither a token id nor a list")
    names = ["repetition_penalty"]
    if raw.get("do_sample"):
        names += ["temperature", "top_p", "top_k", "min_p"]
    sampling = {name: raw[name] for name in names if raw.get(name) is not None}
    if raw.get("do_sample"):
        sampling.setdefault("temperature", 1.0)
    if raw.get("max_new_tokens"):
        sampling["max_tokens"] = raw["max_new_tokens"]
    try:
        SamplingParams.model_validate(sampling)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelLoadError(f"{path} is not usable", cause=f"{first['loc'][0]}: {first['msg']}") from error
    return GenerationDefaults(ids, sampling)


def parallel_error(config: ModelConfig, tensor_parallel_size: int, pipeline_parallel_size: int) -> EngineError | None:
    """Why a model cannot be split this way; None when it can."""
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, tensor_parallel_size
    if heads % size or config.intermediate_size % size or (kv_heads % size and size % kv_heads):
        most = gcd(heads, config.intermediate_size)
        fit = [n for n in range(1, most + 1) if most % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
        return invalid(
            f"{heads} attention heads, {kv_heads} key-value heads and {config.intermediate_size} inner columns cannot"
            f" be shared by {size} ranks; possible: {', '.join(map(str, fit[:12]))}",
            "tensor_parallel_size",
        )
    if pipeline_parallel_size > config.num_layers:
        return invalid(
            f"{config.num_layers} layers cannot fill {pipeline_parallel_size} stages", "pipeline_parallel_size"
        )
    return None


def _architecture(raw: dict[str, Any]) -> str:
    names = raw.get("architectures") or []
    names = names if isinstance(names, list) else [names]
    if names:
        return str(names[0])
    kind = raw.get("model_type")
    return MODEL_TYPES.get(str(kind), f"unnamed (model_type {kind!r})")


def _refuse_quantized(raw: dict[str, Any], folder: Path) -> None:
    about = raw.get("quantization_config")
    if about:
        method = about.get("quant_method", "unnamed") if isinstance(about, dict) else about
        raise ModelLoadError(
            f"The weights in {folder} are quantised already ({method}), which this engine does not read",
            cause="it reads plain weights and quantises them itself",
            hint="Take the plain model, and quantise it here:  LLMEngineConfig(quantization='int8')",
        )


def _described(architecture: str, raw: dict[str, Any], folder: Path) -> ModelConfig:
    heads, hidden = int(raw["num_attention_heads"]), int(raw["hidden_size"])
    attention_bias = bool(raw.get("attention_bias", False))
    context = int(raw.get("max_position_embeddings", 2048))
    rope = None if raw.get("learned_positions") else read_rope(raw, folder)
    gated = bool(raw.get("gated", True))
    inner = raw["intermediate_size"] if gated else raw.get("intermediate_size") or 4 * hidden
    return ModelConfig(
        architecture=architecture,
        vocab_size=int(raw["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(inner),
        num_layers=int(raw["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        max_position=context if rope is None else reach(rope, context),
        norm_eps=float(raw.get("layer_norm_epsilon") or raw.get("rms_norm_eps", 1e-6)),
        rope=rope,
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=bool(raw.get("qkv_bias", attention_bias)),
        output_bias=attention_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        head_norms=bool(raw.get("head_norms", False)),
        layer_norm=bool(raw.get("layer_norm", False)),
        gated=gated,
        activation=str(raw.get("hidden_act", "silu")),
        windows=_windows(raw),
        scale_by_layer=bool(raw.get("scale_attn_by_inverse_layer_idx", False)),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
    )


def _windows(raw: dict[str, Any]) -> tuple[int | None, ...]:
    """The window of each layer: `layer_types` says which slide, else `max_window_layers` does, else all of them."""
    size = raw.get("sliding_window")
    if size is None or not raw.get("use_sliding_window", True):
        return ()
    layers = min(int(raw["num_hidden_layers"]), _MOST_LAYERS)
    kinds = raw.get("layer_types")
    if kinds is None:
        first = int(raw.get("max_window_layers", 0))
        kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    windows = tuple(int(size) if kind == "sliding_attention" else None for kind in kinds)
    return windows if any(windows) else ()


def _wrong_shape(config: ModelConfig) -> str:
    """What is wrong with the sizes; empty when nothing is."""
    sizes = (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads)
    if min(*sizes, config.head_dim, config.intermediate_size, config.max_position) < 1:
        return "a size is not positive"
    if config.num_layers > _MOST_LAYERS or max(*sizes, config.intermediate_size) > _MOST:
        return "a size is beyond every model"
    if config.num_heads % config.num_kv_heads:
        return f"{config.num_heads} attention heads cannot share {config.num_kv_heads} key-value heads"
    if config.rope is not None and config.head_dim % 2:
        return f"head_dim {config.head_dim} is odd; rotary embeddings need pairs"
    if any(window is not None and window < 1 for window in config.windows):
        return "a sliding window is not positive"
    if config.activation not in ACTIVATIONS:
        return f"hidden_act {config.activation!r}; this engine has {', '.join(ACTIVATIONS)}"
    return ""

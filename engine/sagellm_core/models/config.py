"""A model folder's `config.json` and `generation_config.json`, as the engine needs them. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sagellm_core.errors import ModelLoadError
from sagellm_protocol.sampling import SamplingParams

SUPPORTED = ("LlamaForCausalLM",)
_ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(slots=True, frozen=True)
class RopeConfig:
    """Rotary position embedding; `kind` is one of default, linear, llama3 (Hugging Face names)."""

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(slots=True, frozen=True)
class ModelConfig:
    """Shape of a decoder of the Llama family."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    dtype: str = "float32"

    @property
    def num_parameters(self) -> int:
        """Size of the model, tied embeddings counted once, biases and norms left out."""
        heads = (2 * self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        layer = self.hidden_size * heads + 3 * self.hidden_size * self.intermediate_size
        tables = 1 if self.tie_word_embeddings else 2
        return self.num_layers * layer + tables * self.vocab_size * self.hidden_size

    def kv_bytes_per_token(self, element_size: int) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * element_size


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
    raw = read_json(folder / "config.json")
    architecture = _architecture(raw, folder)
    try:
        heads = int(raw["num_attention_heads"])
        config = ModelConfig(
            architecture=architecture,
            vocab_size=int(raw["vocab_size"]),
            hidden_size=int(raw["hidden_size"]),
            intermediate_size=int(raw["intermediate_size"]),
            num_layers=int(raw["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or int(raw["hidden_size"]) // heads),
            max_position=int(raw.get("max_position_embeddings", 2048)),
            rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope=_rope(raw, folder),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            attention_bias=bool(raw.get("attention_bias", False)),
            mlp_bias=bool(raw.get("mlp_bias", False)),
            dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
        )
    except KeyError as error:
        raise ModelLoadError(f"{folder / 'config.json'} has no {error.args[0]}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelLoadError(f"{folder / 'config.json'} is not usable", cause=str(error)) from error
    _check_shape(config, raw, folder)
    return config


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


def _architecture(raw: dict[str, Any], folder: Path) -> str:
    names = raw.get("architectures") or []
    names = names if isinstance(names, list) else [names]
    if not names and raw.get("model_type") == "llama":
        return "LlamaForCausalLM"
    name = str(names[0]) if names else f"unnamed (model_type {raw.get('model_type')!r})"
    if name in SUPPORTED:
        return name
    near = get_close_matches(name, SUPPORTED, n=1, cutoff=0.5)
    raise ModelLoadError(
        f"The model in {folder} has the architecture {name}, which this engine does not run",
        cause=f"supported: {', '.join(SUPPORTED)}" + (f" (nearest: {near[0]})" if near else ""),
        hint="Try the built-in model:  sage-engine --model sage-builtin",
    )


def _rope(raw: dict[str, Any], folder: Path) -> RopeConfig:
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise TypeError(f"rope_parameters is {scaling!r}, not an object")
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind not in _ROPE_TYPES:
        raise ModelLoadError(
            f"The model in {folder} scales its positions by {kind!r}, which this engine does not have",
            cause=f"supported: {', '.join(_ROPE_TYPES)}",
        )
    theta = scaling.get("rope_theta") or raw.get("rope_theta") or 10_000.0
    original = scaling.get("original_max_position_embeddings") or raw.get("max_position_embeddings", 8192)
    return RopeConfig(
        theta=float(theta),
        kind=kind,
        factor=float(scaling.get("factor") or 1.0),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_position=int(original),
    )


def _check_shape(config: ModelConfig, raw: dict[str, Any], folder: Path) -> None:
    wrong = ""
    sizes = (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads)
    if min(*sizes, config.head_dim, config.intermediate_size, config.max_position) < 1:
        wrong = "a size is not positive"
    elif config.num_heads % config.num_kv_heads:
        wrong = f"{config.num_heads} attention heads cannot share {config.num_kv_heads} key-value heads"
    elif config.head_dim % 2:
        wrong = f"head_dim {config.head_dim} is odd; rotary embeddings need pairs"
    elif raw.get("hidden_act", "silu") != "silu":
        wrong = f"hidden_act {raw['hidden_act']!r}; the Llama family has silu"
    if wrong:
        raise ModelLoadError(f"{folder / 'config.json'} is not usable", cause=wrong)

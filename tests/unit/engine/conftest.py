"""Tiny random-weight Llamas on disk, and what `transformers` says that they generate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.tiny_models import expected_tokens as generated
from tests.helpers.tiny_models import write_tokenizer

SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def llama_tensors(shape: dict[str, Any], seed: int) -> dict[str, Any]:
    """Random float32 weights by their Hugging Face names."""
    import numpy

    draw = numpy.random.default_rng(seed)
    hidden, inner, vocabulary = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    queries, keys = (shape[f"num_{kind}_heads"] * shape["head_dim"] for kind in ("attention", "key_value"))
    tensors: dict[str, Any] = {}

    def matrix(name: str, rows: int, columns: int, bias: bool = False) -> None:
        tensors[f"{name}.weight"] = draw.normal(0, 0.3, (rows, columns)).astype(numpy.float32)
        if bias:
            tensors[f"{name}.bias"] = draw.normal(0, 0.3, rows).astype(numpy.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = draw.normal(1, 0.1, hidden).astype(numpy.float32)

    matrix("model.embed_tokens", vocabulary, hidden)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        with_bias = shape.get("attention_bias", False)
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            matrix(f"{prefix}.self_attn.{name}_proj", rows, hidden, with_bias)
        matrix(f"{prefix}.self_attn.o_proj", hidden, queries, with_bias)
        with_bias = shape.get("mlp_bias", False)
        matrix(f"{prefix}.mlp.gate_proj", inner, hidden, with_bias)
        matrix(f"{prefix}.mlp.up_proj", inner, hidden, with_bias)
        matrix(f"{prefix}.mlp.down_proj", hidden, inner, with_bias)
        norm(f"{prefix}.input_layernorm")
        norm(f"{prefix}.post_attention_layernorm")
    norm("model.norm")
    if not shape["tie_word_embeddings"]:
        matrix("lm_head", vocabulary, hidden)
    return tensors


def write_llama(folder: Path, *, shards: int = 1, seed: int = 0, **changes: Any) -> Path:
    """A random-weight Llama in Hugging Face format, in one file or in shards with an index."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shape = {**SHAPE, **changes, "vocab_size": write_tokenizer(folder)}
    (folder / "config.json").write_text(json.dumps(shape))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    tensors = llama_tensors(shape, seed)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    where: dict[str, str] = {}
    for index in range(shards):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[index::shards]}
        save_file(part, folder / file, {"format": "pt"})
        where.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make (once a session and variant) a tiny Llama; keyword arguments change its config.json."""
    made: dict[str, Path] = {}

    def make(**changes: Any) -> Path:
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            made[key] = write_llama(tmp_path_factory.mktemp("llama"), **changes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_llama(llama_folder: Callable[..., Path]) -> Path:
    return llama_folder()


@pytest.fixture(scope="session")
def expected_tokens() -> Callable[..., list[int]]:
    """The new tokens of `transformers`' greedy generate in float32, end-of-text included."""

    def generate(folder: Path, prompt: list[int], max_tokens: int, *, ignore_eos: bool = False) -> list[int]:
        return generated(folder, prompt, max_tokens, ignore_eos=ignore_eos)

    return generate

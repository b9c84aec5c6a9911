"""Variants of every family give `transformers`' logits and tokens: positions, biases, windows, names (SPEC E7)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers.forward import whole_logits
from tests.helpers.tiny_models import FALLBACK, OWN, expected_tokens, reference, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.layers.rope import rope_tables
from sagellm_core.models import read_model_config
from sagellm_core.models.rope_config import RopeConfig
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E7")

TOKENS = [(index * 37 + 11) % 300 + 5 for index in range(50)]
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in [*OWN, *FALLBACK]},
    "gpt2 scores by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2 narrow": ("gpt2", {"n_inner": 40, "activation_function": "relu"}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama gelu": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "llama multi-query": ("llama", {"num_key_value_heads": 1}),
    "llama wide heads": ("llama", {"head_dim": 16}),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    "llama llama3": ("llama", {"rope_parameters": LLAMA3}),
    "mistral without window": ("mistral", {"sliding_window": None}),
    "mistral narrow heads": ("mistral", {"head_dim": 4, "tie_word_embeddings": True}),
    "qwen2 whole": ("qwen2", {"use_sliding_window": False}),
    "qwen2 yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen2 layer types": ("qwen2", {"layer_types": ["sliding_attention", "full_attention"]}),
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "qwen3 yarn": ("qwen3", {"rope_parameters": {**YARN, "attention_factor": 1.3, "beta_fast": 4, "truncate": False}}),
    "qwen3 yarn of two scales": ("qwen3", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}}),
    "mixture of experts": ("mixtral", {"num_local_experts": 4}),
    "small experts": ("qwen3_moe", {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}),
    "soft-capped scores": ("gemma2", {"head_dim": 8, "sliding_window": 16}),
    "sinks": ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, "sliding_window": 16}),
    "two rotations": ("gemma3_text", {"head_dim": 8, "sliding_window": 16}),
    "windows in turn": ("cohere2", {"sliding_window": 16}),
    "learned positions": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "llama heads turned in part": ("llama", {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_every_token(name: str) -> None:
    family, changes = VARIANTS[name]
    folder = tiny_model(family, **changes)
    with torch.inference_mode():
        wanted = reference(folder)(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(whole_logits(folder, TOKENS), wanted, rtol=1e-3, atol=1e-3)


def test_own_families_run_here_and_the_others_through_transformers() -> None:
    assert not any(read_model_config(tiny_model(family)).foreign for family in OWN)
    assert all(read_model_config(tiny_model(family)).foreign for family in FALLBACK)


@pytest.mark.parametrize("family", OWN)
def test_a_checkpoint_of_the_bare_decoder(family: str, tmp_path: Path) -> None:
    """Whose names have no prefix, and which has no head: the embedding is it."""
    whole = tiny_model(family, tie_word_embeddings=True)
    folder = copytree(whole, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model.").removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    save_file(bare, folder / "model.safetensors")
    assert torch.equal(whole_logits(folder, TOKENS), whole_logits(whole, TOKENS))


@pytest.mark.parametrize("family", OWN)
def test_shards_and_a_configuration_that_names_its_type_alone(family: str, tmp_path: Path) -> None:
    folder = copytree(tiny_model(family, shards=3), tmp_path / "model")
    assert len(list(folder.glob("*.safetensors"))) > 1
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(whole_logits(folder, TOKENS), whole_logits(tiny_model(family), TOKENS))


async def generated(folder: Path, prompt: list[int], count: int, **options: Any) -> list[int]:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), backend_type="cpu", dtype="float32", **options))
    await engine.start()
    try:
        params = SamplingParams(max_tokens=count, ignore_eos=True)
        return (await engine.generate(prompt, sampling_params=params)).output_tokens
    finally:
        await engine.stop()


async def test_dynamic_positions_grow_with_the_text() -> None:
    """Token for token as `transformers`, from inside the original context to beyond it, cut anyhow."""
    scaling = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    folder = tiny_model("llama", max_position_embeddings=32, rope_parameters=scaling)
    prompt = TOKENS[:20]
    wanted = expected_tokens(folder, prompt, 60)
    assert read_model_config(folder).max_position == 128
    assert await generated(folder, prompt, 60) == wanted
    again = prompt + wanted[:50]
    assert await generated(folder, again, 10, max_num_batched_tokens=32) == wanted[50:]
    plain = tiny_model("llama", max_position_embeddings=128)
    assert expected_tokens(plain, prompt, 60) != wanted, "the scaling makes no difference in this test"


def longrope() -> Path:
    """A model whose rotations differ between texts of up to 32 tokens and longer ones."""
    factors = {"short_factor": [1.0 + 0.1 * i for i in range(4)], "long_factor": [2.0 + i for i in range(4)]}
    scaling = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 32, **factors}
    shape: dict[str, Any] = {"max_position_embeddings": 128, "original_max_position_embeddings": 32}
    return tiny_model("phi3", rope_parameters=scaling, sliding_window=None, **shape)


@pytest.mark.parametrize("longest", [30, 100])
async def test_longrope_takes_the_factors_of_the_longest_text(longest: int) -> None:
    """Short factors where no text can leave the original context, long ones where one can."""
    folder = longrope()
    prompt = TOKENS[:40] if longest > 32 else TOKENS[:10]
    wanted = expected_tokens(folder, prompt, 15)
    assert await generated(folder, prompt, 15, max_model_len=longest) == wanted


async def test_longrope_does_not_depend_on_the_batch() -> None:
    config = LLMEngineConfig(model_path=str(longrope()), backend_type="cpu", dtype="float32", max_model_len=100)
    engine = LLMEngine(config)
    await engine.start()
    try:
        params = SamplingParams(max_tokens=15, ignore_eos=True)
        short, long = TOKENS[:10], TOKENS
        alone = await engine.generate(short, sampling_params=params)
        mixed, _ = await asyncio.gather(*(engine.generate(each, sampling_params=params) for each in (short, long)))
        assert mixed.output_tokens == alone.output_tokens
    finally:
        await engine.stop()


def test_rotations_of_a_position_do_not_depend_on_the_table() -> None:
    for kind in ("default", "linear", "dynamic", "llama3", "yarn"):
        config = RopeConfig(kind=kind, factor=4.0, original_max_position=16)
        short, long = (rope_tables(config, 8, size, torch.device("cpu")) for size in (40, 64))
        for one, other in zip(short, long, strict=True):
            torch.testing.assert_close(one, other[:40])

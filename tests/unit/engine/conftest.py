"""Tiny random-weight Llamas on disk, and what `transformers` says that they generate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXTS = [
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "SAGE runs pipelines, engines and gateways on one machine or many.",
    "多字节字符:你好,世界!這是一個測試。",
    "Emoji 😀🚀👩‍👩‍👧 and accents: café, naïve, Grüße.",
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
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
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def write_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer trained on a few lines; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def write_llama(folder: Path, *, shards: bool = False, seed: int = 0, **changes: Any) -> Path:
    """A random-weight Llama in Hugging Face format, saved by `transformers` itself."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    shape = {**SHAPE, **changes, "vocab_size": write_tokenizer(folder)}
    shape.pop("architectures"), shape.pop("model_type")
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    model.generation_config.do_sample = False
    model.save_pretrained(folder, max_shard_size="40KB" if shards else "5GB")
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
    loaded: dict[Path, Any] = {}

    def generate(folder: Path, prompt: list[int], max_tokens: int, *, ignore_eos: bool = False) -> list[int]:
        import torch
        from transformers import AutoModelForCausalLM

        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = loaded[folder].generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None if ignore_eos else 1,
            )
        return [int(token) for token in out[0, len(prompt) :]]

    return generate

"""Tiny random-weight models of many families on disk, made with `transformers`, and what it generates from them.

    folder = tiny_model("qwen2")                       # made once a process, removed when it ends
    expected_tokens(folder, prompt, max_tokens=16)     # greedy, float32

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

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
EOS = 1
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
_QWEN = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}

OWN: dict[str, dict[str, Any]] = {
    "gpt2": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama": {},
    "mistral": {"sliding_window": 24},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 16, "tie_word_embeddings": True},
}
"""Families that the engine runs itself: what their tiny configuration has beyond the common sizes."""

FALLBACK: dict[str, dict[str, Any]] = {
    "gpt_neox": {"rotary_pct": 0.5},
    "granite": {},
    "olmo2": {},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": 24},
    "stablelm": {"partial_rotary_factor": 0.5},
    "starcoder2": {},
}
"""Families that run through `transformers`' own code."""


def tiny_model(family: str, *, seed: int = 0, shards: int = 1, **changes: Any) -> Path:
    """The folder of a tiny model; keyword arguments change its configuration. Nobody may write into it."""
    return _made(family, seed, shards, json.dumps(changes, sort_keys=True))


def expected_tokens(folder: Path, prompt: list[int], max_tokens: int, *, ignore_eos: bool = True) -> list[int]:
    """The new tokens of `transformers`' greedy generate in float32, end-of-text included."""
    return list(_generated(folder, tuple(prompt), max_tokens, ignore_eos))


def write_model(folder: Path, family: str, changes: Mapping[str, Any], *, seed: int = 0, shards: int = 1) -> Path:
    """A model of this family with random weights that spread its logits, in Hugging Face format."""
    import torch

    library = _transformers()
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {**_SIZES, "vocab_size": write_tokenizer(folder)}
    shape = {**sizes, **OWN.get(family, FALLBACK.get(family, {})), **changes}
    config = library.AutoConfig.for_model(family, **shape)
    model = library.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_norm = weight.dim() == 1 and name.endswith("weight")
            weight.normal_(1.0 if is_norm else 0.0, 0.1 if is_norm else 0.3, generator=draw)
    size = sum(weight.nbytes for weight in model.parameters())
    model.save_pretrained(folder, max_shard_size=f"{size // shards // 1000 + 1}KB" if shards > 1 else "1GB")
    return folder


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


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def _made(family: str, seed: int, shards: int, changes: str) -> Path:
    folder = _root() / f"{family}-{_made.cache_info().misses}"
    return write_model(folder, family, json.loads(changes), seed=seed, shards=shards)


@cache
def _transformers() -> Any:
    library = import_module("transformers")
    library.utils.logging.disable_progress_bar()
    return library


@cache
def reference(folder: Path) -> Any:
    """The model as `transformers` loads it, float32, on one thread."""
    import torch

    torch.set_num_threads(1)
    return _transformers().AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def _generated(folder: Path, prompt: tuple[int, ...], max_tokens: int, ignore_eos: bool) -> tuple[int, ...]:
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = reference(folder).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None if ignore_eos else EOS,
        )
    return tuple(int(token) for token in out[0, len(prompt) :])

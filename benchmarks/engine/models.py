"""Model folders with random weights, made once in the cache: the same bytes for ours and for every peer.

Speed does not depend on what weights say, only on their shapes, so nothing is downloaded. The tokenizer is a real one:
byte-level BPE, trained on the sources of Python's own standard library, its vocabulary filled up to the model's.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

_TRAINED_VOCABULARY = 16_384
_TRAINING_FILES = 200
_DEVIATION = 0.02


@dataclass(frozen=True, slots=True)
class Shape:
    """One decoder: the numbers of its config.json. `name` is its folder in the cache."""

    name: str
    title: str
    model_type: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    positions: int
    theta: float
    eps: float
    bias: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Weights of all matrices; the embedding is the head too and counts once."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = self.hidden * (2 * queries + 2 * keys) + 3 * self.hidden * self.inner
        return self.layers * layer + self.vocabulary * self.hidden

    def kv_bytes(self, itemsize: int) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * itemsize

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        config: dict[str, Any] = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.eps,
            "rope_theta": self.theta,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
        }
        if self.model_type == "llama":
            config |= {"attention_bias": False, "mlp_bias": False, "head_dim": self.head_dim}
        else:
            config |= {"use_sliding_window": False}
        return config


SMALL = Shape(
    "llama-15m", "15M", "llama", "LlamaForCausalLM", layers=6, hidden=384, heads=6, kv_heads=6, inner=1152,
    vocabulary=8192, positions=4096, theta=10_000.0, eps=1e-5, bias=False,
)  # fmt: skip
MEDIUM = Shape(
    "qwen2.5-0.5b", "0.5B", "qwen2", "Qwen2ForCausalLM", layers=24, hidden=896, heads=14, kv_heads=2, inner=4864,
    vocabulary=151_936, positions=32_768, theta=1_000_000.0, eps=1e-6, bias=True,
)  # fmt: skip
LARGE = Shape(
    "qwen2.5-7b", "7B", "qwen2", "Qwen2ForCausalLM", layers=28, hidden=3584, heads=28, kv_heads=4, inner=18_944,
    vocabulary=152_064, positions=32_768, theta=1_000_000.0, eps=1e-6, bias=True,
)  # fmt: skip


def folder_of(shape: Shape, cache: Path) -> Path:
    """The model's Hugging Face folder under `cache`, made when it is not there: complete, or absent."""
    folder = cache / "models" / shape.name
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "config.json").write_text(json.dumps(shape.config(), indent=1), encoding="utf-8")
    (part / "generation_config.json").write_text('{"bos_token_id": 0, "eos_token_id": 1}', encoding="utf-8")
    _write_tokenizer(part, shape.vocabulary)
    _write_weights(part, shape)
    part.rename(folder)
    return folder


def _write_weights(folder: Path, shape: Shape) -> None:
    """Normal weights in bfloat16 from a fixed seed, under Hugging Face names."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(7)
    save_file(dict(_tensors(shape, draw)), folder / "model.safetensors", {"format": "pt"})


def _tensors(shape: Shape, draw: Generator) -> Iterator[tuple[str, Tensor]]:
    import torch

    def matrix(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=draw) * _DEVIATION).bfloat16()

    def norm() -> Tensor:
        return torch.ones(shape.hidden, dtype=torch.bfloat16)

    hidden, inner = shape.hidden, shape.inner
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", matrix(shape.vocabulary, hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{prefix}.self_attn.{name}_proj.weight", matrix(rows, hidden)
            if shape.bias:
                yield f"{prefix}.self_attn.{name}_proj.bias", matrix(1, rows)[0]
        yield f"{prefix}.self_attn.o_proj.weight", matrix(hidden, queries)
        yield f"{prefix}.mlp.gate_proj.weight", matrix(inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", matrix(inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", matrix(hidden, inner)
        yield f"{prefix}.input_layernorm.weight", norm()
        yield f"{prefix}.post_attention_layernorm.weight", norm()
    yield "model.norm.weight", norm()


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, _TRAINED_VOCABULARY),
        special_tokens=["<|bos|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sources(), trainer)
    description = json.loads(tokenizer.to_str())
    words = description["model"]["vocab"]
    words |= {f"<filler {index}>": index for index in range(len(words), vocabulary)}
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _sources() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py"))[:_TRAINING_FILES]:
        yield path.read_text(encoding="utf-8", errors="replace")

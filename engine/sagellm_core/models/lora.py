"""LoRA adapters from folders in PEFT's format, put beside the matrices of a decoder of an own family.

A folder holds `adapter_config.json` and safetensors with a pair `<module>.lora_A.weight` (rank, inputs) and
`<module>.lora_B.weight` (outputs, rank) for every matrix that it changes. What would need more than such pairs (DoRA,
trained biases or whole modules, embeddings, ranks that differ by module) is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagellm_core.errors import ModelLoadError, invalid, not_implemented
from sagellm_core.layers.attention import AttentionMetadata, PagedAttention
from sagellm_core.layers.linear import LinearOp, RowParallel
from sagellm_core.layers.lora import AdapterRows, LoraLinear, LowRank
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig, read_json
from sagellm_core.models.decoder import Decoder, DecoderLayer
from sagellm_core.models.own import OwnLoader
from sagellm_core.models.weights import Part, WeightReader

_PREFIX = "base_model.model."
_REFUSED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "trainable_token_indices",
)


@dataclass(slots=True, frozen=True)
class AdapterConfig:
    """An adapter's folder with its rank, and the factor of its products."""

    name: str
    folder: Path
    rank: int
    scale: float


def read_adapter_config(name: str, folder: Path, max_rank: int) -> AdapterConfig:
    """What `adapter_config.json` says. Raises ModelLoadError (unusable), EngineError (more than this engine does)."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ModelLoadError(
            f"There is no adapter {name!r} in {folder}",
            cause=f"{path.name} is missing" if folder.is_dir() else "no such folder",
            hint="Name a folder in PEFT's format:  --lora NAME=FOLDER   (in Python: lora_adapters)",
        )
    raw = read_json(path)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise not_implemented(f"the adapter {name!r} is of the kind {kind!r}; this engine has LORA", "lora_adapters")
    more = [field for field in _REFUSED if raw.get(field)]
    more += [f"bias={raw['bias']}"] if raw.get("bias", "none") != "none" else []
    if more:
        raise not_implemented(f"the adapter {name!r} has {more[0]}, which this engine does not do", "lora_adapters")
    rank, alpha = raw.get("r"), raw.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise ModelLoadError(f"{path} is not usable", cause=f"r={rank!r}, lora_alpha={alpha!r}")
    if rank > max_rank:
        raise invalid(f"the adapter {name!r} has rank {rank}, but max_lora_rank is {max_rank}", "lora_adapters")
    return AdapterConfig(name, folder, rank, alpha / (rank**0.5 if raw.get("use_rslora") else rank))


class LoraModel:
    """A model with adapters. Steps in which nobody asks for one run as if there were none.

    `step` says which rows of the next `forward` belong to which adapter.
    """

    def __init__(self, plain: CausalLM, adapted: Decoder, step: AdapterRows) -> None:
        self.config: ModelConfig = plain.config
        self.step = step
        self._plain = plain
        self._adapted = adapted

    @property
    def dtype(self) -> torch.dtype:
        return self._plain.dtype

    @property
    def num_kv_heads(self) -> int:
        return self._plain.num_kv_heads

    @property
    def num_layers(self) -> int:
        return self._plain.num_layers

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: AttentionMetadata,
    ) -> Tensor:
        """Hidden states as in `CausalLM`."""
        model = self._adapted if self.step.groups else self._plain
        return model.forward(inputs, positions, caches, attention, meta)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits as in `CausalLM`; adapters leave the head alone."""
        return self._plain.logits(hidden)


def with_adapters(loader: OwnLoader, adapters: Sequence[AdapterConfig]) -> LoraModel:
    """The loader's model with these adapters. Raises ModelLoadError on missing, misshapen or surplus tensors."""
    decoder = loader.load()
    plain = loader.backend.specialise(decoder)
    pairs: list[dict[str, dict[str, LowRank]]] = [{} for _ in decoder.layers]
    for adapter in adapters:
        for layer, found in zip(pairs, _read(adapter, loader), strict=True):
            for field, pair in found.items():
                layer.setdefault(field, {})[adapter.name] = pair
    step = AdapterRows()
    layers = [_adapt(layer, each, step) for layer, each in zip(decoder.layers, pairs, strict=True)]
    return LoraModel(plain, replace(decoder, layers=layers), step)


def _adapt(layer: DecoderLayer, pairs: dict[str, dict[str, LowRank]], step: AdapterRows) -> DecoderLayer:
    changes: dict[str, Any] = {field: _beside(getattr(layer, field), pair, step) for field, pair in pairs.items()}
    return replace(layer, **changes)


def _beside(op: LinearOp, adapters: dict[str, LowRank], step: AdapterRows) -> LinearOp:
    """Where the ranks' results are summed, each adds what its inputs give before that."""
    if isinstance(op, RowParallel):
        return replace(op, part=LoraLinear(op.part, adapters, step))
    return LoraLinear(op, adapters, step)


def _read(adapter: AdapterConfig, loader: OwnLoader) -> list[dict[str, LowRank]]:
    """This rank's part of an adapter, by layer of this stage and by the matrix's field in `DecoderLayer`."""
    with WeightReader(adapter.folder) as reader:
        _check_names(adapter, reader, loader)
        mine = loader.shard.layers(loader.config.num_layers)
        return [
            {
                field: pair
                for field, parts in loader.matrices(index).items()
                if (pair := _pair(adapter, reader, parts, loader)) is not None
            }
            for index in mine
        ]


def _pair(adapter: AdapterConfig, reader: WeightReader, parts: list[Part], loader: OwnLoader) -> LowRank | None:
    """Beside a matrix that several tensors make up: their pairs side by side, each with outputs of its own."""
    dtype, device, rank = loader.dtype, loader.backend.device, adapter.rank
    downs: list[Tensor] = []
    ups: list[tuple[int, Tensor]] = []
    first = 0
    for part in parts:
        outputs, inputs = part.shape
        name = _PREFIX + part.name.removesuffix(".weight")
        if f"{name}.lora_A.weight" in reader or f"{name}.lora_B.weight" in reader:
            down = Part(f"{name}.lora_A.weight", (rank, inputs), columns=part.columns)
            up = Part(f"{name}.lora_B.weight", (outputs, rank), rows=part.rows)
            downs.append(reader.stack([down], dtype, device))
            ups.append((first, reader.stack([up], torch.float32, device).mul_(adapter.scale).to(dtype)))
        first += part.size[0]
    if not downs:
        return None
    wide = torch.zeros(rank * len(ups), first, dtype=dtype, device=device)
    for index, (start, outer) in enumerate(ups):
        wide[index * rank : (index + 1) * rank, start : start + outer.shape[0]] = outer.t()
    return LowRank(torch.cat(downs).t().contiguous(), wide)


def _check_names(adapter: AdapterConfig, reader: WeightReader, loader: OwnLoader) -> None:
    """Every tensor must belong to a matrix that adapters can change: none is passed over in silence."""
    known = {
        _PREFIX + part.name.removesuffix("weight") + f"lora_{side}.weight"
        for index in range(loader.config.num_layers)
        for parts in loader.matrices(index).values()
        for part in parts
        for side in "AB"
    }
    surplus = sorted(set(reader.names) - known)
    if surplus or not reader.names:
        raise ModelLoadError(
            f"The adapter {adapter.name!r} in {adapter.folder} does not fit the model",
            cause=f"it changes {surplus[0]}" if surplus else "it has no tensors",
            hint="Adapters can change the matrices of attention and MLP; is it made for this model?",
        )


def adapters_of(adapters: dict[str, str], max_rank: int, config: ModelConfig) -> list[AdapterConfig]:
    """Configured adapters (folders by name), checked. Raises what `read_adapter_config` raises; see there."""
    if adapters and config.foreign:
        raise not_implemented(
            f"LoRA adapters need a model of an own family; {config.architecture} runs through transformers",
            "lora_adapters",
        )
    return [read_adapter_config(name, Path(folder).expanduser(), max_rank) for name, folder in adapters.items()]

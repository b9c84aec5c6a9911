"""Any causal LM of `transformers` on the paged cache: its own modules, with our attention in its attention registry.

The modules see one row of tokens, those of all sequences one after the other, with the position of each; what belongs
together only the attention knows, from the step's metadata. So whatever else a model does between tokens (recurrent
states, convolutions, attention that changes its scores) cannot run here, and is found by a trial when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sagellm_core.errors import ModelLoadError
from sagellm_core.layers.attention import AttentionMetadata, AttentionSpec, PagedAttention
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.shard import Shard

NAME = "sage_paged"
"""Our attention's name in the registries of `transformers`."""


class Step(Protocol):
    """What stands behind the attention of every layer while the modules run."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim), to (tokens, heads, …)."""
        ...


@dataclass(slots=True)
class PagedStep:
    """One step over the caches; `first` is the number of the first layer that has one here."""

    caches: list[Tensor]
    attention: PagedAttention
    meta: AttentionMetadata
    specs: list[AttentionSpec]
    first: int

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        at = layer - self.first
        return self.attention.attend(query, key, value, self.caches[at], self.meta, self.specs[at])


@dataclass(slots=True)
class Trial:
    """A step without cache, to see how each layer attends. Every token attends to itself."""

    specs: dict[int, AttentionSpec] = field(default_factory=dict)
    refused: str = ""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        if options.get("position_bias") is not None:
            self.refused = "its attention has a bias by position"
        elif layer in self.specs:
            self.refused = f"layer {layer} attends twice"
        elif key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            self.refused = "its keys and values differ in size"
        heads, head_dim = query.shape[1:]
        scale = options.get("scaling")
        scale = head_dim**-0.5 if scale is None else float(scale)
        window, softcap, sinks = (options.get(name) for name in ("sliding_window", "softcap", "s_aux"))
        self.specs[layer] = AttentionSpec(heads, key.shape[1], head_dim, scale, window, softcap, sinks)
        return value.repeat_interleave(heads // key.shape[1], dim=1)


class Seat:
    """What an attention module has as `sage_seat`: the step that is running."""

    def __init__(self) -> None:
        self.step: Step | None = None


@dataclass(slots=True)
class _Output:
    """What a decoder returns, as far as it counts: whatever else a causal LM asks for (a cache, the router's weights
    of a mixture of experts) is None."""

    last_hidden_state: Tensor

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]


class _Given(nn.Module):
    """Stands for the decoder of a causal LM that is asked for its logits alone: the hidden states are given."""

    def __init__(self) -> None:
        super().__init__()
        self.output: _Output | None = None

    @property
    def decoder(self) -> nn.Module:
        return self

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


def register() -> None:
    """Put our attention into the registries of `transformers`; again does nothing."""
    library = import_module("transformers")
    library.AttentionInterface.register(NAME, _attention)
    library.AttentionMaskInterface.register(NAME, _no_mask)


def seat_attention(decoder: nn.Module) -> Seat:
    """Give every module that has a layer's number the same seat."""
    seat = Seat()
    for module in decoder.modules():
        if hasattr(module, "layer_idx"):
            module.__dict__["sage_seat"] = seat
    return seat


class HFDecoder:
    """A causal LM of `transformers`, or the layers of one pipeline stage of it."""

    def __init__(
        self, config: ModelConfig, shard: Shard, model: Any, seat: Seat, specs: list[AttentionSpec], dtype: torch.dtype
    ) -> None:
        self.config = config
        self.shard = shard
        self.dtype = dtype
        self.specs = specs
        self._first = shard.layers(config.num_layers).start
        self._seat = seat
        prefix = model.base_model_prefix
        self.decoder = getattr(model, prefix)
        self.causal = model
        self._given = _Given()
        setattr(model, prefix, self._given)

    @property
    def num_kv_heads(self) -> int:
        return self.specs[0].num_kv_heads

    @property
    def num_layers(self) -> int:
        return len(self.specs)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor,
        caches: list[Tensor],
        attention: PagedAttention,
        meta: AttentionMetadata,
    ) -> Tensor:
        """Hidden states (tokens, hidden); `inputs` as in `CausalLM`."""
        self._seat.step = PagedStep(caches, attention, meta, self.specs, self._first)
        return run_decoder(self.decoder, inputs, positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (rows, vocabulary), with whatever scaling the architecture applies."""
        self._given.output = _Output(hidden[None])
        logits: Tensor = self.causal(input_ids=None, use_cache=False).logits
        return logits[0]


def run_decoder(decoder: Any, inputs: Tensor, positions: Tensor) -> Tensor:
    """Hidden states (tokens, hidden) of token ids (tokens,), or of the hidden states of the stage before."""
    ids = inputs
    if inputs.dim() == 2:
        decoder.sage_received.states = inputs[None]
        ids = torch.zeros_like(positions)
    out = decoder(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden[0]


def try_out(decoder: nn.Module, seat: Seat, config: ModelConfig, device: torch.device) -> dict[int, AttentionSpec]:
    """How each layer attends. Raises ModelLoadError when the model cannot run on the paged cache."""
    trial = Trial()
    seat.step = trial
    two = torch.zeros(2, dtype=torch.long, device=device)
    try:
        with torch.inference_mode():
            run_decoder(decoder, two, torch.arange(2, device=device))
    except Exception as error:  # modules of the library, run in a way that not all of them know
        raise _unfit(config, f"{type(error).__name__}: {error}") from error
    shapes = {(spec.num_kv_heads, spec.head_dim) for spec in trial.specs.values()}
    if trial.refused:
        raise _unfit(config, trial.refused)
    if sorted(trial.specs) != list(range(config.num_layers)):
        raise _unfit(config, f"{len(trial.specs)} of {config.num_layers} layers attend through the registry")
    if len(shapes) > 1:
        raise _unfit(config, "its layers have key-value heads of different number or size")
    return trial.specs


def _unfit(config: ModelConfig, cause: str) -> ModelLoadError:
    return ModelLoadError(
        f"{config.architecture} cannot run on this engine's paged cache",
        cause=cause,
        hint="Serve it with vLLM or TEI behind the gateway:  sage llm engine start --help",
    )


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """`transformers`' attention function: (1, heads, tokens, head_dim) to (1, tokens, heads, head_dim)."""
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    out = module.sage_seat.step.attend(module.layer_idx, query, key, value, options)
    return out[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask: the attention knows what each token sees."""

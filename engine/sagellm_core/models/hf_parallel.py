"""Cuts a `transformers` model into the part of one rank, by the plans that its configuration class brings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sagellm_core.backends.base import Backend
from sagellm_core.comm import Communicator
from sagellm_core.errors import EngineError, not_implemented
from sagellm_core.layers.linear import LinearOp
from sagellm_core.models.shard import Shard

_STYLES = {
    "colwise": (False, False),
    "colwise_gather_output": (False, True),
    "colwise_rep": (False, True),
    "rowwise": (True, False),
    "rowwise_rep": (True, False),
    "rowwise_split_input": (True, True),
}
"""How a matrix is split: (by its inputs, and the whole input or output is there on every rank)."""


class Product(nn.Module):
    """A `Linear` whose matrix the backend keeps."""

    def __init__(self, op: LinearOp) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        rows = self.op(x.reshape(-1, x.shape[-1]))
        return rows.view(*x.shape[:-1], -1)


@dataclass(slots=True)
class GatheredColumns:
    """A rank's outputs, and those of the others beside them."""

    part: LinearOp
    group: Communicator

    def __call__(self, x: Tensor) -> Tensor:
        return self.group.all_gather(self.part(x))


@dataclass(slots=True)
class SummedRows:
    """A rank's inputs, whole (`columns` of them are this rank's) or already its share; the results are summed."""

    part: LinearOp
    bias: Tensor | None
    group: Communicator
    columns: range | None

    def __call__(self, x: Tensor) -> Tensor:
        own = x if self.columns is None else x[:, self.columns.start : self.columns.stop].contiguous()
        total = self.group.all_reduce(self.part(own))
        return total if self.bias is None else total + self.bias


class _Skipped(nn.Module):
    """A layer, or a norm, that another stage has."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden


class _NoEmbedding(nn.Module):
    """Vectors of nothing: what comes out is thrown away on a stage that receives its states."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, like.shape[1], dtype=like.dtype, device=like.device), False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.expand(*ids.shape, -1)


class Received:
    """Puts the states of the stage before in the place of the first layer's input."""

    def __init__(self) -> None:
        self.states: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self.states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.states}


def keep_stage(model: Any, config: Any, shard: Shard) -> None:
    """Keep the layers of this stage. Raises EngineError (not_implemented) when the architecture has no such plan."""
    decoder = getattr(model, model.base_model_prefix)
    plan = list(getattr(config, "base_model_pp_plan", None) or ())
    if len(plan) < 3 or "layers" not in plan:
        raise _cannot(model, "pipeline_parallel_size")
    layers = decoder.layers
    own = shard.layers(len(layers))
    for index in range(len(layers)):
        if index not in own:
            layers[index] = _Like(layers[index])
    if not shard.is_first:
        embed = getattr(decoder, plan[0])
        setattr(decoder, plan[0], _NoEmbedding(embed.weight))
        decoder.__dict__["sage_received"] = Received()
        layers[own.start].register_forward_pre_hook(decoder.sage_received, with_kwargs=True)
    if not shard.is_last:
        for name in plan[plan.index("layers") + 1 :]:
            setattr(decoder, name, _Skipped())
        model.set_output_embeddings(nn.Identity())


class _Like(_Skipped):
    """A skipped layer that keeps what the model asks of its layers (which kind of attention they have)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, value in vars(layer).items():
            if not name.startswith("_") and isinstance(value, int | str):
                setattr(self, name, value)


def hand_to_backend(model: Any, backend: Backend, shard: Shard) -> None:
    """Replace every `Linear` by the backend's product, and by this rank's share of it where the plan says so.

    Raises EngineError (not_implemented) when the architecture has no plan for several ranks.
    """
    plan = _tensor_plan(model) if shard.group.size > 1 else {}
    embedding = model.get_input_embeddings()
    tied = getattr(embedding, "weight", None)
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear:
            continue
        style = next((style for pattern, style in plan.items() if pattern.fullmatch(name)), None)
        parent = model.get_submodule(name.rpartition(".")[0])
        shared = module.weight is tied
        setattr(parent, name.rpartition(".")[2], Product(_product(module, style, backend, shard, shared)))


def _product(module: nn.Linear, style: str | None, backend: Backend, shard: Shard, shared: bool) -> LinearOp:
    weight = module.weight.detach()
    given = dict(module.named_parameters(recurse=False)).get("bias")
    bias = None if given is None else given.detach()
    if style is None:
        return backend.linear(weight, bias, shared=shared)
    by_inputs, whole = _STYLES[style]
    size = weight.shape[1 if by_inputs else 0]
    if size % shard.group.size:
        raise not_implemented(f"a matrix of {size} cannot be shared by {shard.group.size}", "tensor_parallel_size")
    part = shard.part(size)
    if by_inputs:
        op = backend.linear(weight[:, part.start : part.stop].clone())
        return SummedRows(op, bias, shard.group, part if whole else None)
    own = backend.linear(
        weight[part.start : part.stop].clone(), None if bias is None else bias[part.start : part.stop].clone()
    )
    return GatheredColumns(own, shard.group) if whole else own


def _tensor_plan(model: Any) -> dict[re.Pattern[str], str]:
    """Names of modules of the causal LM, and how each is split."""
    config = model.config.get_text_config(decoder=True)
    base = getattr(config, "base_model_tp_plan", None)
    if not base:
        raise _cannot(model, "tensor_parallel_size")
    named = {f"{model.base_model_prefix}.{name}": style for name, style in base.items()}
    plan = {}
    for name, style in named.items():
        if style in _STYLES:
            plan[re.compile(re.escape(name).replace(r"\*", r"\d+"))] = style
        elif not style.startswith("replicated"):
            raise _cannot(model, "tensor_parallel_size")
    return plan


def _cannot(model: Any, param: str) -> EngineError:
    name = type(model).__name__
    return not_implemented(f"{name} runs through transformers, which brings no plan to split it: {param}=1", param)

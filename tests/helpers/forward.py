"""One step of a model over some tokens, without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sagellm_core.backends import BackendConfig
from sagellm_core.backends.base import Backend, attention_for
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.engine_core.plan import BatchType, SchedulerOutput
from sagellm_core.models import read_model_config
from sagellm_core.models.base import CausalLM
from sagellm_core.models.load import load_model
from sagellm_core.models.shard import WHOLE, Shard
from sagellm_core.models.weights import WeightReader

_BLOCK = 16


def load(
    folder: Path,
    shard: Shard = WHOLE,
    backend: Backend | None = None,
    *,
    dtype: str = "float32",
    max_position: int | None = None,
) -> CausalLM:
    """The model on the CPU, as a worker loads it."""
    config = read_model_config(folder)
    device = backend or CPUBackend(BackendConfig("cpu"))
    device.prepare_thread(config, 1)
    kind = device.dtype(dtype, config)
    with WeightReader(folder) as reader:
        return load_model(config, reader, kind, device, max_position or config.max_position, shard)


def hidden_states(model: CausalLM, inputs: Tensor, tokens: Sequence[int], backend: Backend | None = None) -> Tensor:
    """Of one sequence, all of it in one step; `inputs` are its token ids, or the states of the stage before."""
    count = len(tokens)
    blocks = -(-count // _BLOCK)
    at = list(range(count))
    plan = SchedulerOutput(
        1, BatchType.PREFILL, ["a"], list(tokens), at, at, [count], [count], [list(range(blocks))], [True]
    )
    device = backend or CPUBackend(BackendConfig("cpu"))
    device.dtype(str(model.dtype).removeprefix("torch."), model.config)
    attention = attention_for(device, model.config, _BLOCK)
    shape = (2, blocks, _BLOCK, model.num_kv_heads, model.config.head_dim)
    caches = [device.new_cache(shape, model.dtype) for _ in range(model.num_layers)]
    with torch.inference_mode():
        meta = attention.prepare(plan, model.dtype)
        return model.forward(inputs, torch.tensor(at), caches, attention, meta)


def logits(model: CausalLM, hidden: Tensor) -> Tensor:
    """Float32 (rows, vocabulary)."""
    with torch.inference_mode():
        return model.logits(hidden).float()


def whole_logits(folder: Path, tokens: Sequence[int], *, dtype: str = "float32") -> Tensor:
    """Logits of every token of a text (tokens, vocabulary)."""
    model = load(folder, dtype=dtype)
    return logits(model, hidden_states(model, torch.tensor(tokens), tokens))

"""From a model folder to a model on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sagellm_core.backends.base import Backend
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig, parallel_error
from sagellm_core.models.own import OwnLoader
from sagellm_core.models.shard import WHOLE, Shard
from sagellm_core.models.weights import WeightReader

if TYPE_CHECKING:
    from sagellm_core.models.lora import AdapterConfig


def load_model(
    config: ModelConfig,
    reader: WeightReader,
    dtype: torch.dtype,
    backend: Backend,
    max_position: int,
    shard: Shard = WHOLE,
    *,
    adapters: Sequence[AdapterConfig] = (),
) -> CausalLM:
    """The part of a folder's model that `shard` names, with these adapters, in the form that the backend runs fastest.

    Raises ModelLoadError on bad files, EngineError (invalid_argument) when the model cannot be split so.
    """
    error = parallel_error(config, shard.group.size, shard.num_stages)
    if error is not None:
        raise error
    if config.foreign:
        from sagellm_core.models.hf_load import load_hf

        return load_hf(config, reader.folder, dtype, backend, max_position, shard)
    loader = OwnLoader(config, reader, dtype, backend, shard, max_position)
    if adapters:
        from sagellm_core.models.lora import with_adapters

        return with_adapters(loader, adapters)
    return backend.specialise(loader.load())

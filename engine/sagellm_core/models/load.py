"""From a model folder to a model on a device."""

from __future__ import annotations

import torch

from sagellm_core.backends.base import Backend
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.llama import load_llama
from sagellm_core.models.weights import WeightReader


def load_model(
    config: ModelConfig, reader: WeightReader, dtype: torch.dtype, backend: Backend, max_position: int
) -> CausalLM:
    """The model that a folder describes, in the form that the backend runs fastest. Raises ModelLoadError."""
    return backend.specialise(load_llama(config, reader, dtype, backend, max_position))

"""Model folders: finding them, reading what they say, loading their weights.

`llama` and `weights` bring torch and are imported by the worker alone.
"""

from sagellm_core.models.config import (
    GenerationDefaults,
    ModelConfig,
    RopeConfig,
    read_generation_defaults,
    read_model_config,
)
from sagellm_core.models.locate import locate_model

__all__ = [
    "GenerationDefaults",
    "ModelConfig",
    "RopeConfig",
    "locate_model",
    "read_generation_defaults",
    "read_model_config",
]

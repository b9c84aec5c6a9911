"""Model folders: finding them, reading what they say, loading their weights.

`decoder`, `own`, `load` and `weights` bring torch and are imported by the worker alone.
"""

from sagellm_core.models.config import (
    GenerationDefaults,
    ModelConfig,
    read_generation_defaults,
    read_model_config,
)
from sagellm_core.models.locate import locate_model
from sagellm_core.models.rope_config import RopeConfig

__all__ = [
    "GenerationDefaults",
    "ModelConfig",
    "RopeConfig",
    "locate_model",
    "read_generation_defaults",
    "read_model_config",
]

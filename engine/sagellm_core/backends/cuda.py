"""NVIDIA GPUs through torch: the torch reference attention on the device."""

from __future__ import annotations

import torch

from sagellm_core.backends.base import Backend
from sagellm_core.models.config import ModelConfig

_CACHE_SHARE = 0.85


class CUDABackend(Backend):
    """One CUDA device: `device`, else the first of `device_ids`, else the current one."""

    kind = "cuda"
    preference = 10
    collectives = "nccl"

    @classmethod
    def is_available(cls) -> bool:
        return torch.cuda.is_available()

    @property
    def device(self) -> torch.device:
        if self.config.device:
            return torch.device(self.config.device)
        return torch.device("cuda", self.config.device_ids[0] if self.config.device_ids else 0)

    @property
    def token_budget(self) -> int:
        return 8192

    def dtype(self, requested: str, model: ModelConfig) -> torch.dtype:
        """auto: the checkpoint's type."""
        dtype = getattr(torch, model.dtype if requested == "auto" else requested, None)
        return dtype if isinstance(dtype, torch.dtype) else torch.float32

    def kv_budget_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(free * _CACHE_SHARE)

    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

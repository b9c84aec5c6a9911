"""The CPU: always there."""

from __future__ import annotations

import os

import numpy
import psutil
import torch

from sagellm_core.backends.base import Backend
from sagellm_core.models.config import ModelConfig

_SMALL_MODEL = 50_000_000
_FLOAT32_UP_TO = 200_000_000
_CACHE_SHARE = 0.25
_CACHE_MOST = 4 << 30


class CPUBackend(Backend):
    """Any CPU that torch runs on."""

    kind = "cpu"

    @classmethod
    def is_available(cls) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def token_budget(self) -> int:
        return 512

    def dtype(self, requested: str, model: ModelConfig) -> torch.dtype:
        """auto: float32 for small models (faster and exact), else the checkpoint's type, bfloat16 for float16."""
        if requested == "auto":
            if model.num_parameters <= _FLOAT32_UP_TO:
                return torch.float32
            requested = "bfloat16" if model.dtype == "float16" else model.dtype
        dtype = getattr(torch, requested, None)
        return dtype if isinstance(dtype, torch.dtype) else torch.float32

    def kv_budget_bytes(self) -> int:
        return min(int(psutil.virtual_memory().available * _CACHE_SHARE), _CACHE_MOST)

    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zero pages that the system hands out on first touch: a cache costs the memory that is used, not its size."""
        size = dtype.itemsize
        for side in shape:
            size *= side
        return torch.from_numpy(numpy.zeros(size, dtype=numpy.uint8)).view(dtype).view(shape)

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        """One thread for small models, where waking a second costs more than it computes; else the cores we may use."""
        wanted = num_threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        if not wanted:
            wanted = 1 if model.num_parameters <= _SMALL_MODEL else _usable_cores()
        torch.set_num_threads(wanted)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

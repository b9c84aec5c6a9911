"""Huawei Ascend NPUs through `torch_npu`, which is looked for at run time: this repository does not depend on it.

The model runs as plain torch operators with the torch reference attention; ranks talk over hccl. Written from
torch_npu's documented interface (https://gitee.com/ascend/pytorch) and not run on such a device.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import torch

from sagellm_core.backends.base import Backend
from sagellm_core.models.config import ModelConfig

_CACHE_SHARE = 0.85
_TYPES = (torch.float16, torch.bfloat16, torch.float32)


class AscendBackend(Backend):
    """One NPU: `device` ("npu:1"), else the first of `device_ids`, else the first."""

    kind = "ascend"
    device_type = "npu"
    preference = 20
    collectives = "hccl"

    @classmethod
    def is_available(cls) -> bool:
        return not cls.missing()

    @classmethod
    def missing(cls) -> str:
        """Which part is not there: torch_npu, its CANN libraries, or a device; empty when nothing is missing."""
        if find_spec("torch_npu") is None:
            return "torch_npu is not installed (Huawei's package, together with the CANN toolkit)"
        try:
            npu = _npu()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            return f"torch_npu cannot be loaded: {error}"
        return "" if npu.is_available() else "torch_npu sees no device (npu-smi info shows what the driver sees)"

    @property
    def device(self) -> torch.device:
        if self.config.device:
            return torch.device(self.config.device)
        return torch.device("npu", self.config.device_ids[0] if self.config.device_ids else 0)

    @property
    def token_budget(self) -> int:
        return 4096

    def dtype(self, requested: str, model: ModelConfig) -> torch.dtype:
        """auto: the checkpoint's type, where the device computes in it; else float16."""
        wanted = getattr(torch, model.dtype if requested == "auto" else requested, None)
        return wanted if wanted in _TYPES else torch.float16

    def free_bytes(self) -> int:
        return int(_npu().mem_get_info(self.device)[0])

    def kv_budget_bytes(self) -> int:
        return int(self.free_bytes() * _CACHE_SHARE)

    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        """Devices are a thread's own choice: this thread takes the configured one."""
        super().prepare_thread(model, num_threads)
        _npu().set_device(self.device)


def _npu() -> Any:
    """`torch.npu`, which importing torch_npu adds to torch."""
    importlib.import_module("torch_npu")
    return torch.npu  # type: ignore[attr-defined]

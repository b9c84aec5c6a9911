"""The CPU: always there. Own kernels where a compiler is (layers/cpu), torch's operators elsewhere."""

from __future__ import annotations

import os

import psutil
import torch

from sagellm_core.backends.base import Backend, BackendConfig, StepCapture
from sagellm_core.layers.attention import PagedAttention
from sagellm_core.layers.cpu import (
    TYPES,
    CpuPagedAttention,
    DecodeSteps,
    Feature,
    FusedDecoder,
    PackedLinear,
    QuantisedLinear,
    Type,
    features,
    fuse,
    kernels,
    tie,
)
from sagellm_core.layers.cpu.memory import Slabs, zero_pages
from sagellm_core.layers.linear import Linear, LinearOp
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig

# Large tensors in huge pages: torch reads this when it first allocates. One row is read a fifth faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_SMALL_MODEL = 50_000_000
_FLOAT32_UP_TO = 200_000_000
_CACHE_SHARE = 0.25
_CACHE_MOST = 4 << 30
_QUANTISED = {"int8": Type.I8, "int4": Type.I4}


class CPUBackend(Backend):
    """Any CPU that torch runs on."""

    kind = "cpu"
    device_type = "cpu"
    quantizations = frozenset({"int8", "int4"})

    def __init__(self, config: BackendConfig) -> None:
        super().__init__(config)
        self._library = kernels()
        self._threads = usable_cores()
        self._dtype = torch.float32
        self._slabs = Slabs()

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
        """auto: the checkpoint's type, bfloat16 for float16.

        Small models in half precision are float32 on processors without bfloat16 products: there that is faster.
        """
        if requested == "auto":
            half = model.dtype in ("float16", "bfloat16")
            slow = model.num_parameters <= _FLOAT32_UP_TO and not self._has_bfloat16
            requested = "float32" if slow or not half else "bfloat16"
        dtype = getattr(torch, requested, None)
        self._dtype = dtype if isinstance(dtype, torch.dtype) else torch.float32
        return self._dtype

    @property
    def _has_bfloat16(self) -> bool:
        return self._library is not None and Feature.BF16 in features(self._library)

    def free_bytes(self) -> int | None:
        return int(psutil.virtual_memory().available)

    def kv_budget_bytes(self) -> int:
        return min(int(psutil.virtual_memory().available * _CACHE_SHARE), _CACHE_MOST)

    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zero pages that the system hands out on first touch: a cache costs the memory that is used, not its size."""
        size = dtype.itemsize
        for side in shape:
            size *= side
        return zero_pages(size).view(dtype).view(shape)

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        """The cores we may use; torch gets one for small models, where waking a second costs more than it computes."""
        wanted = num_threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        self._threads = wanted or usable_cores()
        torch.set_num_threads(wanted or (1 if model.num_parameters <= _SMALL_MODEL else self._threads))

    def attention(self, model: ModelConfig, block_size: int) -> PagedAttention:
        if self._library is None or self._dtype not in TYPES:
            return super().attention(model, block_size)
        return CpuPagedAttention(self._library, block_size, self.device, self._threads)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, shared: bool = False) -> LinearOp:
        """In the kernels' layout, in the memory of `weight`; one that is shared waits for `specialise`."""
        if weight.dtype not in TYPES or (self._library is None and self.config.quantization is None):
            return super().linear(weight, bias, shared=shared)
        if shared:
            return Linear(weight.t(), bias)
        kind = _QUANTISED.get(self.config.quantization or "", TYPES[weight.dtype])
        return self._packed(weight, bias, kind)

    def specialise(self, model: CausalLM) -> CausalLM:
        """One call of the kernels a step where they have all that the model does."""
        if model.dtype not in TYPES or (self._library is None and self.config.quantization is None):
            return model
        kind = Type.I8 if self.config.quantization else TYPES[model.dtype]  # int4 would cost a head too much
        tie(model, lambda table: self._packed(table, None, kind))
        if self._library is None:
            return model
        fused = fuse(model, self._library, self._threads)
        if isinstance(fused, FusedDecoder):
            torch.set_num_threads(1)  # what is left to torch is small, and its threads would spin beside ours
        return fused

    def capture(
        self, model: CausalLM, attention: PagedAttention, caches: list[torch.Tensor], max_batch: int, max_model_len: int
    ) -> StepCapture | None:
        """Decode steps as one call, from token ids to the likeliest tokens."""
        if isinstance(model, FusedDecoder) and isinstance(attention, CpuPagedAttention) and model.decodes:
            return DecodeSteps(model, attention, caches)
        return None

    def _packed(self, weight: torch.Tensor, bias: torch.Tensor | None, kind: Type) -> PackedLinear | QuantisedLinear:
        if self._library is None:
            return QuantisedLinear(weight, bias, kind)
        if kind is Type.BF16 and self._has_bfloat16:  # fewer bytes a step; elsewhere unpacking them is not measured
            kind = Type.COMPACT
        return PackedLinear(self._library, weight, bias, kind, self._threads, slabs=self._slabs)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

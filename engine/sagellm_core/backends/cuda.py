"""NVIDIA GPUs: our Triton kernels, fused decoders, recorded decode steps; torch's operators where triton is not."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from sagellm_core.backends.base import Backend, BackendConfig, StepCapture
from sagellm_core.errors import not_implemented
from sagellm_core.models.config import ModelConfig

if TYPE_CHECKING:
    from sagellm_core.layers.attention import PagedAttention
    from sagellm_core.layers.cuda.graphs import Recorder
    from sagellm_core.layers.cuda.measure import Timer
    from sagellm_core.layers.linear import LinearOp
    from sagellm_core.models.base import CausalLM

_CACHE_SHARE = 0.85
_OLDEST = (8, 0)
_HOPPER = (9, 0)
_log = logging.getLogger(__name__)


class CUDABackend(Backend):
    """One CUDA device: `device`, else the first of `device_ids`, else the first."""

    kind = "cuda"
    device_type = "cuda"
    preference = 10
    collectives = "nccl"
    spare_blocks = 1
    quantizations = frozenset({"fp8"})

    def __init__(self, config: BackendConfig) -> None:
        super().__init__(config)
        self._dtype = torch.float32

    @classmethod
    def is_available(cls) -> bool:
        return torch.cuda.is_available()

    @classmethod
    def missing(cls) -> str:
        if torch.version.cuda is None:
            return "this torch is built without CUDA (pip install torch from the CUDA index of pytorch.org)"
        return "torch sees no CUDA device (nvidia-smi shows what the driver sees)"

    @property
    def device(self) -> torch.device:
        if self.config.device:
            return torch.device(self.config.device)
        return torch.device("cuda", self.config.device_ids[0] if self.config.device_ids else 0)

    @property
    def token_budget(self) -> int:
        return 8192

    @property
    def capability(self) -> tuple[int, int]:
        """The device's compute capability: (9, 0) is Hopper."""
        return torch.cuda.get_device_capability(self.device)

    @property
    def overlaps(self) -> bool:
        """Whether a launch can begin before the one before it has ended."""
        return self.capability >= _HOPPER

    @property
    def processors(self) -> int:
        """Multiprocessors of the device."""
        return torch.cuda.get_device_properties(self.device).multi_processor_count

    @property
    def has_kernels(self) -> bool:
        """Whether our kernels run: triton is installed, and the device is new enough (Ampere) for what they use."""
        return find_spec("triton") is not None and self.capability >= _OLDEST

    def dtype(self, requested: str, model: ModelConfig) -> torch.dtype:
        """auto: the checkpoint's type."""
        dtype = getattr(torch, model.dtype if requested == "auto" else requested, None)
        self._dtype = dtype if isinstance(dtype, torch.dtype) else torch.float32
        return self._dtype

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0])

    def kv_budget_bytes(self) -> int:
        return int(self.free_bytes() * _CACHE_SHARE)

    def new_cache(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        """Devices are a thread's own choice: this thread takes the configured one."""
        super().prepare_thread(model, num_threads)
        torch.cuda.set_device(self.device)
        if not self.has_kernels:
            _log.warning("triton is missing or %s is too old for it: plain torch operators are used", self.device)

    def attention(self, model: ModelConfig, block_size: int) -> PagedAttention:
        """Ours for decodes; for prompts the fastest of those that are installed, see `layers.cuda.choice`."""
        if not self.has_kernels:
            return super().attention(model, block_size)
        from sagellm_core.layers.cuda.choice import best_attention

        return best_attention(model, block_size, self._dtype, self.device, self.processors, self.timer())

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, shared: bool = False) -> LinearOp:
        """The checkpoint's own layout. With fp8, 8-bit floats, but for a matrix that is the embedding too.

        Raises EngineError (not_implemented) for fp8 on a device before Hopper, or without triton.
        """
        if not self.has_kernels:
            self._check_float8(self.config.quantization is None)
            return super().linear(weight, bias, shared=shared)
        from sagellm_core.layers.cuda.linear import CudaLinear, float8_linear

        if self.config.quantization != "fp8" or shared:
            return CudaLinear(weight, bias)
        self._check_float8(self.capability >= _HOPPER)
        return float8_linear(weight, bias)

    def specialise(self, model: CausalLM) -> CausalLM:
        """Decoders of the Llama kind in fused operators; others as they are."""
        if not self.has_kernels:
            return model
        from sagellm_core.layers.cuda.fused import FusedDecoder, fusible
        from sagellm_core.models.decoder import Decoder

        if isinstance(model, Decoder) and fusible(model):
            return FusedDecoder(model)
        return model

    def capture(
        self, model: CausalLM, attention: PagedAttention, caches: list[torch.Tensor], max_batch: int, max_model_len: int
    ) -> StepCapture | None:
        """Decode steps as CUDA graphs; None, and a warning, where a model does what cannot be recorded."""
        if not self.has_kernels:
            return None
        from sagellm_core.layers.cuda.capture import captured

        recorder, timer = self.recorder(), self.timer()
        try:
            return captured(
                model, attention, caches, max_batch, max_model_len, recorder, overlaps=self.overlaps, timer=timer
            )
        except RuntimeError as error:
            _log.warning("decode steps run unrecorded, which costs launches: %s", error)
            return None

    def timer(self) -> Timer | None:
        """What choices are measured with; None: nothing is measured."""
        from sagellm_core.layers.cuda.measure import cuda_timer

        return cuda_timer(self.device)

    def recorder(self) -> Recorder:
        from sagellm_core.layers.cuda.graphs import CudaRecorder

        return CudaRecorder(self.device)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "name": torch.cuda.get_device_name(self.device), "kernels": self.has_kernels}

    def _check_float8(self, fine: bool) -> None:
        if not fine:
            raise not_implemented(
                f"fp8 needs a Hopper GPU (compute capability 9.0) and triton; {self.device} has "
                f"{'.'.join(map(str, self.capability))}",
                "quantization",
            )

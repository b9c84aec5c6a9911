"""The CUDA backend on a CPU: its kernels interpreted, its recorded steps run as functions. The kernels are imported
under TRITON_INTERPRET=1 by tests/unit/engine/cuda/conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sagellm_core.backends.cuda import CUDABackend
from sagellm_core.layers.cuda.fused import FusedDecoder
from sagellm_core.layers.cuda.graphs import Recorder, plainly
from sagellm_core.layers.cuda.kernels import GemvTiles
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import ModelConfig


class InterpretedBackend(CUDABackend):
    """What differs is what only a GPU has. `replays` counts recorded steps that were run, by their number."""

    kind = "interpreted"
    preference = 0
    replays: dict[int, int] = {}  # noqa: RUF012  the tests look at the class, the engine makes the object

    @classmethod
    def is_available(cls) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def capability(self) -> tuple[int, int]:
        return (8, 0)

    @property
    def processors(self) -> int:
        return 2

    def prepare_thread(self, model: ModelConfig, num_threads: int | None) -> None:
        torch.set_num_threads(1)

    def free_bytes(self) -> int:
        return 1 << 22

    def describe(self) -> dict[str, object]:
        return {"kind": self.kind, "device": "cpu"}

    def specialise(self, model: CausalLM) -> CausalLM:
        """Large tiles: what the interpreter takes is programs, not numbers."""
        fused = super().specialise(model)
        if isinstance(fused, FusedDecoder):
            fused.tiles = dict.fromkeys(("qkv", "output", "gate_up", "down", "head"), GemvTiles(256, 1024))
        return fused

    def timer(self) -> None:
        """Nothing is measured."""

    def recorder(self) -> Recorder:
        self.replays.clear()

        def record(run: Callable[[], None]) -> Callable[[], None]:
            number = len(self.replays)
            self.replays[number] = 0
            again = plainly(run)

            def replay() -> None:
                self.replays[number] += 1
                again()

            return replay

        return record


class InterpretedHopper(InterpretedBackend):
    """A newer one: 8-bit floats."""

    kind = "interpreted-hopper"

    @property
    def capability(self) -> tuple[int, int]:
        return (9, 0)

    @property
    def overlaps(self) -> bool:
        return False

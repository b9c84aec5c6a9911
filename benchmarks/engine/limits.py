"""What the machine can do: bytes a second that all cores together read from memory."""

from __future__ import annotations

import os
import time

_BYTES = 1 << 30


def packs_weights() -> bool:
    """Whether ours reads bfloat16 weights in 12 bits here: where the kernels multiply bfloat16 (`CPUBackend`)."""
    from sagellm_core.layers.cpu import Feature, features, kernels

    library = kernels()
    return library is not None and Feature.BF16 in features(library)


class ReadBandwidth:
    """Sums a gibibyte with as many threads as there are cores; the best of the calls is the limit."""

    def __init__(self) -> None:
        import numpy
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._data = torch.from_numpy(numpy.ones(_BYTES // 4, dtype=numpy.float32))
        self.best = 0.0

    def measure(self) -> float:
        """Bytes a second of one pass over the data."""
        begun = time.perf_counter()
        self._data.sum()
        rate = _BYTES / (time.perf_counter() - begun)
        self.best = max(self.best, rate)
        return rate

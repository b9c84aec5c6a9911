"""Memory that is not there: found before the weights are read where the device says what it has, told clearly else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sagellm_core.backends.base import Backend
from sagellm_core.errors import EngineError, lacks_memory
from sagellm_core.models.config import ModelConfig
from sagellm_core.models.shard import Shard
from sagellm_protocol.errors import ErrorCode

_HINT = "Take a smaller model, a smaller type (dtype='bfloat16', quantization='int8'), or more devices"


def check_room(model: ModelConfig, bytes_per_weight: float, backend: Backend, shard: Shard) -> None:
    """Raise EngineError (resource_exhausted) when this rank's part of the weights is larger than the free memory."""
    free = backend.free_bytes()
    needed = int(model.num_parameters * bytes_per_weight / (shard.group.size * shard.num_stages))
    if free is not None and needed > free:
        raise EngineError(
            ErrorCode.RESOURCE_EXHAUSTED,
            f"The weights need {needed / 1e9:.1f} GB, but {backend.device} has {free / 1e9:.1f} GB free",
            hint=_HINT,
        )


@contextmanager
def told_when_out(what: str) -> Iterator[None]:
    """Turns whatever says that memory ran out into EngineError (resource_exhausted)."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(ErrorCode.RESOURCE_EXHAUSTED, f"Out of memory {what}", cause=cause, hint=_HINT) from error

"""Memory that runs out is known by the many words that libraries have for it, in a step as while loading."""

from __future__ import annotations

import errno

import pytest
import torch

from sagellm_core.errors import EngineError, lacks_memory
from sagellm_core.models.config import ACTIVATIONS
from sagellm_core.models.decoder import ACTIVATION
from sagellm_core.worker.memory import told_when_out
from sagellm_protocol import ErrorCode

GONE: list[Exception] = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    torch.OutOfMemoryError("CUDA: tried to get 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("NPU out of memory. Tried to get 2.00 GiB"),
]
OTHERS: list[Exception] = [
    OSError(errno.ENOENT, "no such file: out of memory.txt"),
    RuntimeError("the shapes do not fit"),
]


@pytest.mark.parametrize("error", GONE, ids=repr)
def test_memory_that_ran_out_is_told_as_that(error: Exception) -> None:
    assert lacks_memory(error)
    with pytest.raises(EngineError, match="Out of memory here") as caught, told_when_out("here"):
        raise error
    assert caught.value.error_code is ErrorCode.RESOURCE_EXHAUSTED
    assert caught.value.cause


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_faults_stay_what_they_are(error: Exception) -> None:
    assert not lacks_memory(error)
    with pytest.raises(type(error)) as caught, told_when_out("here"):
        raise error
    assert caught.value is error


def test_what_a_configuration_may_name_is_what_a_decoder_has() -> None:
    assert set(ACTIVATIONS) == ACTIVATION.keys()

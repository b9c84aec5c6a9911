"""Backends: found by entry point, chosen by availability, with a type that suits the model (SPEC E5, K13)."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from sagellm_core import BackendConfig, EngineError, create_backend, get_provider
from sagellm_core.backends import base
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.backends.cuda import CUDABackend
from sagellm_core.models import ModelConfig, read_model_config
from sagellm_protocol import ErrorCode

pytestmark = pytest.mark.spec("E5")


class AbacusBackend(CPUBackend):
    """What a package outside this repository would bring."""

    kind = "abacus"
    preference = 99


@pytest.fixture
def shape(tiny_llama: Path) -> ModelConfig:
    return read_model_config(tiny_llama)


def test_providers_by_name() -> None:
    assert get_provider("cpu") is CPUBackend
    assert get_provider("cuda") is CUDABackend
    assert create_backend(BackendConfig(kind="cpu")).describe() == {"kind": "cpu", "device": "cpu"}


def test_an_unknown_or_absent_backend_is_said() -> None:
    with pytest.raises(EngineError, match="known: cpu, cuda, auto"):
        create_backend(BackendConfig(kind="tpu"))
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="not available") as caught:
            create_backend(BackendConfig(kind="cuda"))
        assert caught.value.error_code is ErrorCode.UNAVAILABLE


def test_a_backend_of_another_package_is_found_and_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("abacus", f"{__name__}:AbacusBackend", base.GROUP)
    base.backend_names.cache_clear()
    monkeypatch.setattr(base, "entry_points", lambda group: [point] if group == base.GROUP else [])
    monkeypatch.setattr("importlib.import_module", lambda name: __import__("sys").modules[name])
    try:
        assert get_provider("abacus") is AbacusBackend
        assert create_backend(BackendConfig()).kind == "abacus"
    finally:
        base.backend_names.cache_clear()


def test_dtype_auto_on_a_cpu(shape: ModelConfig) -> None:
    backend = CPUBackend(BackendConfig())
    large = dataclasses.replace(shape, num_layers=100_000, dtype="float16")
    assert backend.dtype("auto", dataclasses.replace(shape, dtype="bfloat16")) is torch.float32
    assert backend.dtype("auto", large) is torch.bfloat16
    assert backend.dtype("float16", shape) is torch.float16


def test_a_cpu_cache_is_zero_and_costs_what_is_touched() -> None:
    import psutil

    before = psutil.Process().memory_info().rss
    cache = CPUBackend(BackendConfig()).new_cache((2, 1 << 14, 16, 4, 32), torch.float32)
    assert cache.numel() * 4 == 256 << 20
    assert psutil.Process().memory_info().rss - before < 64 << 20
    assert cache[1, 77].abs().sum() == 0

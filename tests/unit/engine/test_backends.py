"""Backends: found by entry point, chosen by availability, with a type that suits the model (SPEC E5, K13)."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sagellm_core import BackendConfig, EngineError, LLMEngine, LLMEngineConfig, create_backend, get_provider
from sagellm_core.backends import base
from sagellm_core.backends.ascend import AscendBackend
from sagellm_core.backends.cpu import CPUBackend
from sagellm_core.backends.cuda import CUDABackend
from sagellm_core.models import ModelConfig, read_model_config
from sagellm_protocol import ErrorCode

pytestmark = pytest.mark.spec("E5")


@pytest.fixture
def shape(tiny_llama: Path) -> ModelConfig:
    return read_model_config(tiny_llama)


def test_providers_by_name() -> None:
    assert get_provider("cpu") is CPUBackend
    assert get_provider("cuda") is CUDABackend
    assert create_backend(BackendConfig(kind="cpu")).describe() == {"kind": "cpu", "device": "cpu"}


def test_an_unknown_or_absent_backend_is_said() -> None:
    with pytest.raises(EngineError, match="known: ascend, cpu, cuda, auto"):
        create_backend(BackendConfig(kind="tpu"))
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match=r"not available on this machine: .*CUDA") as caught:
            create_backend(BackendConfig(kind="cuda"))
        assert caught.value.error_code is ErrorCode.UNAVAILABLE
        assert "--backend cpu" in caught.value.hint


@pytest.mark.parametrize("kind", ["cpu", "auto"])
@pytest.mark.parametrize("device", ["cuda:1", "npu", "gpu"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is not the processor here")
def test_a_device_of_another_kind_is_refused_with_the_next_step(kind: str, device: str) -> None:
    with pytest.raises(EngineError, match=f"no device '{device}' here") as caught:
        create_backend(BackendConfig(kind, device=device))
    assert (caught.value.param, caught.value.error_code) == ("device", ErrorCode.INVALID_ARGUMENT)
    assert "Leave `device` out" in caught.value.hint
    if device.startswith("cuda"):
        assert "'cuda' is not available on this machine" in caught.value.cause


def test_the_processor_may_be_named() -> None:
    assert create_backend(BackendConfig("cpu", device="cpu")).device == torch.device("cpu")


@pytest.mark.parametrize(("device_ids", "told"), [([1], True), ([], False)])
async def test_device_ids_without_devices_are_told(
    device_ids: list[int], told: bool, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = LLMEngineConfig(model_path=str(tiny_llama), backend_type="cpu", device_ids=device_ids, max_model_len=64)
    engine = LLMEngine(config)
    await engine.start()
    await engine.stop()
    said = [record.getMessage() for record in caplog.records if "device_ids" in record.getMessage()]
    assert len(said) == told
    assert not told or "Leave device_ids out" in said[0]


ABACUS = """
from sagellm_core.backends.ascend import AscendBackend
from sagellm_core.backends.cpu import CPUBackend

class AbacusBackend(CPUBackend):
    kind = "abacus"
    preference = 99

    def kv_budget_bytes(self):
        return 1 << 22
"""
SCRIPT = """
import asyncio, json, sys
from sagellm_core import BackendConfig, LLMEngine, LLMEngineConfig, create_backend

async def main(folder):
    engine = LLMEngine(LLMEngineConfig(model_path=folder, max_model_len=64))
    await engine.start()
    answer = await engine.generate([5, 6, 7], max_tokens=4)
    await engine.stop()
    return answer.output_tokens

print(json.dumps([create_backend(BackendConfig()).kind, asyncio.run(main(sys.argv[1]))]))
"""


@pytest.mark.slow
def test_a_backend_of_another_package_is_found_preferred_and_generates(
    tmp_path: Path, tiny_llama: Path, expected_tokens: Callable[..., list[int]]
) -> None:
    """A package installed beside this one names an entry point; nothing else connects the two."""
    site = tmp_path / "site"
    info = site / "abacus_sage-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "abacus_sage.py").write_text(ABACUS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus-sage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sagellm.backends]\nabacus = abacus_sage:AbacusBackend\n")
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tiny_llama], capture_output=True, text=True, env=env, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["abacus", expected_tokens(tiny_llama, [5, 6, 7], 4)]


def test_an_entry_point_that_is_no_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base.backend_names.cache_clear()
    point = EntryPoint("path", "pathlib:Path", base.GROUP)
    monkeypatch.setattr(base, "entry_points", lambda group: [point] if group == base.GROUP else [])
    try:
        with pytest.raises(EngineError, match=r"'path' \(pathlib:Path\) is not a sagellm_core Backend"):
            get_provider("path")
    finally:
        base.backend_names.cache_clear()


@pytest.mark.skipif(find_spec("torch_npu") is not None, reason="torch_npu is installed here")
def test_ascend_without_its_software_is_refused_with_what_is_missing() -> None:
    assert get_provider("ascend") is AscendBackend
    with pytest.raises(EngineError, match="'ascend' is not available on this machine: torch_npu is not installed"):
        create_backend(BackendConfig(kind="ascend"))


TORCH_NPU = """
import types, torch
torch.utils.rename_privateuse1_backend("npu")
torch.npu = types.SimpleNamespace(
    is_available=lambda: {devices} > 0,
    mem_get_info=lambda device: (1000 * (1 + device.index), 4000),
    set_device=lambda device: None,
)
"""
NPU_SCRIPT = """
from sagellm_core import BackendConfig, create_backend
backend = create_backend(BackendConfig(kind="auto", device_ids=[1]))
print(backend.kind, backend.device, backend.collectives, backend.kv_budget_bytes())
print(create_backend(BackendConfig("ascend", device="npu:3")).device)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "expected"), [(2, "ascend npu:1 hccl 1700\nnpu:3\n"), (0, "sees no device")])
def test_ascend_is_found_where_its_software_is(tmp_path: Path, devices: int, expected: str) -> None:
    """A stand-in for Huawei's package in another process: what the provider asks of it, and what it makes of that."""
    (tmp_path / "torch_npu.py").write_text(TORCH_NPU.format(devices=devices))
    script = NPU_SCRIPT if devices else NPU_SCRIPT.replace('"auto"', '"ascend"')
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert expected in (done.stdout if devices else done.stderr), done.stderr


@pytest.mark.slow
def test_devices_that_are_not_there_bring_nothing_in() -> None:
    """Neither triton nor our kernels nor Huawei's package is imported to find out that there is no such device."""
    script = (
        "import sys\nfrom sagellm_core import BackendConfig, create_backend\n"
        "create_backend(BackendConfig())\nimport sagellm_core.backends.cuda\n"
        "print([name for name in sys.modules if name.startswith(('triton', 'torch_npu', 'sagellm_core.layers.cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_quantization_that_a_backend_has_not_is_refused() -> None:
    with pytest.raises(EngineError, match="'cpu' has no quantization 'fp8'") as caught:
        create_backend(BackendConfig(kind="cpu", quantization="fp8"))
    assert caught.value.error_code is ErrorCode.NOT_IMPLEMENTED


def test_dtype_auto_on_a_cpu(shape: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagellm_core.backends.cpu.kernels", lambda: None)
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

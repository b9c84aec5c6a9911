"""The machine's numbers, with and without an accelerator."""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Obj
from typing import Any

import pytest

from sage.tui.data.system import Accelerators, ProcessUse, SystemReader


def nvml(**changed: Any) -> types.ModuleType:
    """A module with NVML's interface and one card."""

    class NVMLError(Exception):
        """As in pynvml."""

    def unsupported(handle: object) -> object:
        raise NVMLError("Not Supported")

    module = types.ModuleType("an_nvml")
    functions: dict[str, Any] = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": lambda handle: Obj(used=2**30, total=4 * 2**30),
        "nvmlDeviceGetUtilizationRates": lambda handle: Obj(gpu=37),
        "nvmlDeviceGetPowerUsage": unsupported,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 51,
    }
    vars(module).update(functions | changed)
    return module


def test_a_card_and_what_it_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "an_nvml", nvml())
    (card,) = Accelerators("an_nvml").read()
    assert (card.name, card.utilisation, card.temperature_c, card.power_w) == ("NVIDIA H200", 0.37, 51.0, None)
    assert (card.memory_used, card.memory_total) == (2**30, 4 * 2**30)


def test_no_binding_or_no_driver_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Accelerators("no_such_module").read() == ()

    def fail() -> None:
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "an_nvml", nvml(nvmlInit=fail))
    assert Accelerators("an_nvml").read() == ()


def test_a_driver_that_goes_away_takes_only_the_cards_along(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml()
    monkeypatch.setitem(sys.modules, "an_nvml", module)
    cards = Accelerators("an_nvml")
    assert len(cards.read()) == 1

    def lost() -> int:
        raise RuntimeError("GPU is lost")

    monkeypatch.setattr(module, "nvmlDeviceGetCount", lost)
    assert cards.read() == ()
    assert cards.read() == ()


def test_the_machine(tmp_path: Path) -> None:
    reader = SystemReader(tmp_path / "not" / "yet" / "there", Accelerators("no_such_module"))
    reader.read()
    system = reader.read()
    assert system.cpu is not None
    assert 0 <= system.cpu <= 1
    assert system.memory_used is not None
    assert system.memory_total is not None
    assert 0 < system.memory_used <= system.memory_total
    assert system.disk_free
    assert len(system.cpu_history) == len(system.memory_history) == 2


def test_the_cost_of_a_process(child: Callable[[], subprocess.Popen[bytes]]) -> None:
    own = ProcessUse(os.getpid())
    assert own.read()[0] is None
    sum(number * number for number in range(300_000))
    cpu, resident = own.read()
    assert cpu is not None
    assert cpu > 0
    assert resident is not None
    assert resident > 2**20
    process = child()
    other = ProcessUse(process.pid)
    assert other.read()[1]
    process.kill()
    process.wait()
    assert other.read() == (None, None)

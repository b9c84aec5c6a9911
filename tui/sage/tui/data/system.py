"""The machine: processor, memory, disk through psutil, accelerators through NVML where the binding is installed.

NVML is asked lazily and at most once in ``_RETRY_S`` when it fails: a machine without a GPU pays nothing, and a driver
that comes back is found again.
"""

from __future__ import annotations

import importlib
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from sage.tui.data.model import AcceleratorView, SystemView

__all__ = ["Accelerators", "ProcessUse", "SystemReader"]

_RETRY_S = 30.0
_CHILDREN_EVERY = 10  # looking for children reads the whole process table
HISTORY = 180


class Accelerators:
    """GPUs through NVML (package ``nvidia-ml-py``, module ``pynvml``); an empty tuple when there are none."""

    def __init__(self, module: str = "pynvml") -> None:
        self._module = module
        self._nvml: Any = None
        self._retry_at = 0.0

    def read(self) -> tuple[AcceleratorView, ...]:
        """Every GPU now. Never raises."""
        if self._nvml is None and not self._open():
            return ()
        try:
            return tuple(self._one(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        except Exception:
            self._nvml, self._retry_at = None, time.monotonic() + _RETRY_S
            return ()

    def _open(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        try:
            nvml = importlib.import_module(self._module)
            nvml.nvmlInit()
        except Exception:
            self._retry_at = time.monotonic() + _RETRY_S
            return False
        self._nvml = nvml
        return True

    def _one(self, index: int) -> AcceleratorView:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
        memory = self._maybe(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        load = self._maybe(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        power = self._maybe(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return AcceleratorView(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name),
            utilisation=None if load is None else load / 100,
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            temperature_c=self._maybe(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            power_w=None if power is None else power / 1000,
        )

    def _maybe(self, read: Any) -> Any:
        """A reading that this GPU may not support (a MIG slice has no utilisation, a laptop no power)."""
        try:
            return read()
        except self._nvml.NVMLError:
            return None


class SystemReader:
    """Reads the machine once a refresh and remembers the recent past."""

    def __init__(self, path: Path, accelerators: Accelerators | None = None) -> None:
        self._path = path
        self._accelerators = accelerators or Accelerators()
        self._cpu: deque[float] = deque(maxlen=HISTORY)
        self._memory: deque[float] = deque(maxlen=HISTORY)
        self._cores = psutil.cpu_count() or 1
        psutil.cpu_percent(interval=None)  # the first call only starts the interval

    def read(self) -> SystemView:
        """The machine now; CPU is the mean since the last call."""
        cpu = psutil.cpu_percent(interval=None) / 100
        memory = psutil.virtual_memory()
        used = memory.total - memory.available
        self._cpu.append(cpu)
        self._memory.append(used / memory.total if memory.total else 0.0)
        load: float | None = None
        disk: int | None = None
        with suppress(OSError):
            load = psutil.getloadavg()[0]
        with suppress(OSError):
            disk = psutil.disk_usage(str(_existing(self._path))).free
        return SystemView(
            cpu=cpu,
            cores=self._cores,
            load1=load,
            memory_used=used,
            memory_total=memory.total,
            disk_free=disk,
            accelerators=self._accelerators.read(),
            cpu_history=tuple(self._cpu),
            memory_history=tuple(self._memory),
        )


class ProcessUse:
    """CPU and memory of one process and its children, between calls."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._last: tuple[float, float] | None = None
        self._family: list[psutil.Process] = []
        self._reads = 0

    def read(self) -> tuple[float | None, int | None]:
        """``(cores busy since the last call, resident bytes)``; Nones once the process is gone."""
        try:
            if self._reads % _CHILDREN_EVERY == 0:
                root = psutil.Process(self.pid)
                self._family = [root, *root.children(recursive=True)]
            self._reads += 1
            alive = self._family[0].is_running()
        except psutil.Error:
            alive = False
        if not alive:
            return None, None
        return self._sum()

    def _sum(self) -> tuple[float | None, int | None]:
        spent, resident = 0.0, 0
        for process in self._family:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                spent += times.user + times.system
                resident += process.memory_info().rss
        now = time.monotonic()
        last, self._last = self._last, (now, spent)
        if last is None or now <= last[0]:
            return None, resident
        return max(0.0, (spent - last[1]) / (now - last[0])), resident


def _existing(path: Path) -> Path:
    """The nearest ancestor that exists, so that disk space is known before ``.sage`` is made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path

"""The machine: CPU, memory, accelerators."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from sage.tui.data.model import AcceleratorView, Snapshot, SystemView
from sage.tui.format import clip, size, spark
from sage.tui.widgets.draw import Piece, dim, gauge, line
from sage.tui.widgets.panel import Panel

__all__ = ["SystemPanel"]


class SystemPanel(Panel):
    """Two lines when it is low and wide, a column of gauges otherwise."""

    def lines(self, snapshot: Snapshot, width: int, height: int) -> Iterable[Content]:
        """CPU and memory first, then one gauge an accelerator."""
        system = snapshot.system
        if height <= 3:
            return _low(system, width)
        return _tall(system, width, height)


def _used(system: SystemView) -> float | None:
    return system.memory_used / system.memory_total if system.memory_used and system.memory_total else None


def _load(system: SystemView) -> str:
    load = "" if system.load1 is None else f" · load {system.load1:.2f}"
    return f"{system.cores} core{'s' * (system.cores != 1)}{load}"


def _memory(system: SystemView) -> str:
    return f"{size(system.memory_used)} of {size(system.memory_total)}"


def _low(system: SystemView, width: int) -> list[Content]:
    half = max(20, (width - 4) // 2)
    cpu, memory = gauge("CPU", system.cpu, half), gauge("Memory", _used(system), half, label_width=8)
    second: list[Piece] = [dim(_load(system).ljust(half)), "    ", dim(_memory(system))]
    if system.accelerators:
        gpu = system.accelerators[0]
        more = f" +{len(system.accelerators) - 1}" if len(system.accelerators) > 1 else ""
        detail: list[Piece] = [
            gauge(f"GPU{gpu.index}", gpu.utilisation, half),
            "    ",
            dim(clip(_gpu(gpu) + more, half)),
        ]
        return [line(cpu, "    ", memory), line(*detail)]
    return [line(cpu, "    ", memory), line(*second)]


def _tall(system: SystemView, width: int, height: int) -> list[Content]:
    lines = [gauge("CPU", system.cpu, width)]
    if height >= 8:
        lines.append(line(" " * 5, (spark(system.cpu_history, width - 10, top=1.0), "$primary")))
    lines += [line(dim(f"     {_load(system)}")), gauge("Mem", _used(system), width)]
    if height >= 10 and not system.accelerators:
        lines.append(line(" " * 5, (spark(system.memory_history, width - 10, top=1.0), "$primary")))
    lines.append(line(dim(f"     {_memory(system)}")))
    for gpu in system.accelerators:
        lines.append(gauge(f"GPU{gpu.index}", gpu.utilisation, width))
        lines.append(line(dim(clip(f"     {_gpu(gpu)}", width))))
    if len(lines) < height:
        lines.append(line(dim("Disk "), f"{size(system.disk_free)}", dim(" free")))
    if not system.accelerators and len(lines) < height:
        lines.append(line(dim("GPU  none seen through NVML")))
    return lines[:height]


def _gpu(gpu: AcceleratorView) -> str:
    parts = [gpu.name.removeprefix("NVIDIA ")]
    if gpu.memory_total:
        parts.append(f"{size(gpu.memory_used)} of {size(gpu.memory_total)}")
    if gpu.temperature_c is not None:
        parts.append(f"{gpu.temperature_c:.0f} °C")
    if gpu.power_w is not None:
        parts.append(f"{gpu.power_w:.0f} W")
    return " · ".join(parts)

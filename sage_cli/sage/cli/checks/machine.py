"""Python, accelerator, disk, WSL2."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys

from sage.cli.checks.check import Check, nearest_existing
from sage.common.config.ports import SagePorts
from sage.common.home import SageHome

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
_PROBE_SECONDS = 5
_GIB = 1024**3
LITTLE_DISK, NO_DISK = 5 * _GIB, _GIB // 4


def python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """The interpreter: 3.11 to 3.13 are tested."""
    detail = f"{platform.python_version()} ({sys.executable})"
    if version < OLDEST_PYTHON:
        return Check("python", "fail", detail, "Install Python 3.11 or newer, then install SAGE with it.")
    if version > NEWEST_PYTHON:
        return Check("python", "warn", f"{detail}; newer than what SAGE is tested with (3.11 to 3.13)")
    return Check("python", "ok", detail)


def accelerator() -> Check:
    """GPUs as their own tools name them; torch is asked for its build only, not imported."""
    found = _gpus()
    if not found:
        return Check("accelerator", "ok", f"none found; models run on the CPU ({_cpus()})")
    from sage.cli.checks.packages import version_of

    build = version_of("torch") or ""
    if found[0].startswith("NVIDIA") and build.endswith("+cpu"):
        step = "Install a GPU build:  pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
        return Check("accelerator", "warn", f"{', '.join(found)}, but torch {build} cannot use it", step)
    return Check("accelerator", "ok", ", ".join(found))


def disk(home: SageHome) -> Check:
    """Room for state, logs and models where ``.sage/`` stands."""
    place = nearest_existing(home.root)
    free = shutil.disk_usage(place).free
    detail = f"{free / _GIB:.1f} GB free at {place}"
    if free < NO_DISK:
        step = "Free some space, or move the state:  export SAGE_HOME=/path/with/space/.sage"
        return Check("disk", "fail", detail, step)
    if free < LITTLE_DISK:
        return Check("disk", "warn", detail, "Models need space: free some before you fetch one.")
    return Check("disk", "ok", detail)


def wsl() -> Check:
    """WSL2 refuses connections to some ports that can be bound; the engine then takes another one."""
    if not SagePorts.is_wsl():
        return Check("WSL2", "ok", "no")
    return Check("WSL2", "ok", f"yes; the LLM engine falls back to port {SagePorts.LLM_WSL_FALLBACK} where needed")


def _gpus() -> list[str]:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ["Apple GPU (unified memory)"]
    names = [f"NVIDIA {line.removeprefix('NVIDIA ')}" for line in _nvidia_smi()]
    if names:
        return names
    return ["Ascend NPU"] if _output("npu-smi", "info") else []


def _nvidia_smi() -> list[str]:
    rows = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return [", ".join(part.strip() for part in row.split(",")) for row in rows]


def _output(*command: str) -> list[str]:
    """The lines that a tool prints; [] where it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _cpus() -> str:
    import os

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{usable} core{'s' if usable != 1 else ''}"

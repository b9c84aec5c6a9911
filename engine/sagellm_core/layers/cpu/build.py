"""Compiles the CPU kernels (`sagellm_core/kernels`) on first use and keeps the result in a cache folder. No torch."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import sagellm_core
from sage.common.logs import get_logger

_SOURCES = Path(sagellm_core.__file__).parent / "kernels"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")
_TIMEOUT_S = 300
_log = get_logger(__name__)


@cache
def compiled() -> ctypes.CDLL | None:
    """The kernels, or None without a working compiler (said once in the log, with what to do).

    `SAGE_CPU_KERNELS=off` leaves them out; `CXX` names the compiler; the result is kept in `SAGE_CACHE` or
    ~/.cache/sage, by source, compiler and processor.
    """
    if os.environ.get("SAGE_CPU_KERNELS", "").lower() in ("off", "0", "no"):
        return None
    compiler = _compiler()
    if compiler is None:
        _log.warning("no C++ compiler (g++ or clang++): the CPU runs torch's operators, which are slower")
        return None
    try:
        return _library(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        reason = bytes(output).decode(errors="replace").strip().splitlines()[:1] or [str(error)]
        _log.warning("%s cannot build the CPU kernels, torch's operators run instead: %s", compiler, reason[0])
        return None


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    named = os.environ.get("SAGE_CACHE")
    if named:
        return Path(named).expanduser() / "kernels"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sage" / "kernels"


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    found = (shutil.which(name) for name in ([named] if named else ["g++", "clang++", "c++"]))
    return next((path for path in found if path), None)


def _library(compiler: str) -> ctypes.CDLL:
    """The shared library for these sources, this compiler and this processor; built where it is not there, or torn."""
    target = cache_folder() / f"cpu-{_key(compiler)}.so"
    kept = _opened(target)
    if kept is not None:
        return kept
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.with_suffix(".lock"), "w")  # noqa: SIM115 (closed below; a lock lives as long as the file)
    except OSError:  # a home that cannot be written: built for this process alone
        with tempfile.TemporaryDirectory(prefix="sage-kernels-") as folder:  # once loaded, the file is not needed
            return _build(compiler, Path(folder) / target.name)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _opened(target) or _build(compiler, target)


def _opened(target: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(target))
    except OSError:
        return None


def _build(compiler: str, target: Path) -> ctypes.CDLL:
    _log.info("compiling the CPU kernels once with %s (some seconds)", compiler)
    partial = target.with_suffix(f".{os.getpid()}.tmp")
    command = [compiler, *_FLAGS, "-o", str(partial), str(_SOURCES / "kernels.cpp")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return ctypes.CDLL(str(target))


def _key(compiler: str) -> str:
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for source in sorted(_SOURCES.glob("*.[ch]*")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    status = Path(compiler).stat()
    digest.update(f"{os.path.realpath(compiler)} {status.st_size} {status.st_mtime_ns}".encode())
    digest.update(_processor().encode())
    return digest.hexdigest()[:20]


def _processor() -> str:
    """What `-march=native` looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "cpu family", "model")
    return platform.machine() + "".join(line for line in lines if line.split("\t")[0].strip() in wanted)

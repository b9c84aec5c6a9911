"""The peers' own environments: virtual environments in the cache, one a peer, made when they are not there.

What cannot be installed (no wheel for this Python, no compiler, no network) leaves its rows empty, and the report says
why. transformers runs in the environment of this repository, because it is one of its dependencies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ENGINE_PEERS: dict[str, tuple[str, ...]] = {
    "llamacpp": ("llama-cpp-python==0.3.36", "numpy"),
    "openvino": ("openvino-genai==2026.4.1.0", "numpy"),
    "ctranslate2": ("ctranslate2==4.8.5", "numpy"),
    "convert": ("torch==2.13.0", "optimum-intel[openvino]==2.2.0", "ctranslate2==4.8.5", "gguf==0.19.0"),
}
FLOW_PEERS: dict[str, tuple[str, ...]] = {
    "flow-bytewax": ("bytewax==0.21.1",),
    "flow-pathway": ("pathway==0.33.0",),
    "flow-quixstreams": ("quixstreams==3.28.1",),
    "flow-streamz": ("streamz==0.6.6",),
    "flow-pyflink": ("apache-flink==2.3.0",),
}
REQUIREMENTS = ENGINE_PEERS | FLOW_PEERS
# optimum-intel brings torchvision, whose build on the package index does not go with a CPU build of torch.
_UNWANTED = {"convert": ("torchvision",)}
OURS = "ours"


class EnvironmentUnavailableError(Exception):
    """An environment could not be made; the message is for the report."""


def cache_folder() -> Path:
    """Where environments, models and logs are: $SAGE_BENCH_CACHE, else ~/.cache/sage-bench."""
    return Path(os.environ.get("SAGE_BENCH_CACHE") or Path.home() / ".cache" / "sage-bench")


def python_of(name: str) -> Path:
    """The Python of an environment, installed first where it is not there. Raises EnvironmentUnavailableError."""
    if name == OURS:
        return Path(sys.executable)
    folder = cache_folder() / "venvs" / name
    python = folder / "bin" / "python"
    complete = folder / "installed.txt"
    wanted = "\n".join(REQUIREMENTS[name])
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing the environment {name}: {', '.join(REQUIREMENTS[name])}", file=sys.stderr, flush=True)
    _call([sys.executable, "-m", "venv", str(folder)], name)
    _call([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], name)
    if name in _UNWANTED:
        _call([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *_UNWANTED[name]], name)
    complete.write_text(wanted, encoding="utf-8")
    return python


def _call(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise EnvironmentUnavailableError(f"{name} cannot be installed: {lines[-1][:300] if lines else 'no message'}")

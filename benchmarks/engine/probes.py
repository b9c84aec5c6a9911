"""What needs a process of its own to be measured: `python -m benchmarks.engine.probes (prefix|load|ready) [FOLDER]`.

Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PREFIX = 2048
_SUFFIX = 16
_PREFIXES = 3


def prefix(folder: str) -> dict[str, float]:
    """Seconds to the first token of prompts that share 2,048 tokens with one before them, and of those that do not."""
    from sagellm_core import LLMEngine, LLMEngineConfig
    from sagellm_protocol.sampling import SamplingParams

    draw = random.Random(3)
    one = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)

    def ids(count: int) -> list[int]:
        return [draw.randint(300, 8000) for _ in range(count)]

    async def run() -> dict[str, float]:
        engine = LLMEngine(LLMEngineConfig(model_path=folder, backend_type="cpu", max_model_len=PREFIX + 64))
        await engine.start()
        times: dict[str, list[float]] = {"cold": [], "cached": []}
        await engine.generate(ids(64), sampling_params=one)
        for _ in range(_PREFIXES):
            shared = ids(PREFIX)
            for kind in times:
                begun = time.perf_counter()
                await engine.generate(shared + ids(_SUFFIX), sampling_params=one)
                times[kind].append(time.perf_counter() - begun)
        await engine.stop()
        return {kind: sorted(values)[len(values) // 2] for kind, values in times.items()}

    return asyncio.run(run())


def load(folder: str) -> dict[str, float]:
    """Bytes that loading added at its peak: all memory, and that which is no page of a file."""
    import torch  # noqa: F401  -- what importing costs is not what loading costs

    from sagellm_core import LLMEngine, LLMEngineConfig

    base = _memory()
    peak = dict(base)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            for name, value in _memory().items():
                peak[name] = max(peak[name], value)

    async def run() -> None:
        engine = LLMEngine(LLMEngineConfig(model_path=folder, backend_type="cpu", kv_cache_num_blocks=64))
        await engine.start()
        await engine.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        asyncio.run(run())
    finally:
        done.set()
        watcher.join()
    weights = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    return {name: peak[name] - base[name] for name in base} | {"weights": weights}


def ready(folder: str) -> dict[str, float]:
    """The built-in model, or that of a folder: started and stopped. Whoever starts this process takes the time."""
    from sagellm_core import LLMEngine, LLMEngineConfig

    async def run() -> None:
        engine = LLMEngine(LLMEngineConfig(model_path=folder))
        await engine.start()
        print("ready", flush=True)
        await engine.stop()

    asyncio.run(run())
    return {}


def _memory() -> dict[str, float]:
    """Resident bytes of this process: all of them, and the anonymous ones."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"resident": _bytes(rows["VmRSS"]), "anonymous": _bytes(rows["RssAnon"])}


def _bytes(text: str) -> float:
    return float(text.split()[0]) * 1024


PROBES: dict[str, Callable[[str], dict[str, float]]] = {"prefix": prefix, "load": load, "ready": ready}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](sys.argv[2])))

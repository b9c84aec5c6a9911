"""Ours alone: a cached prefix, waste in the KV cache, memory while loading, time until ready."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time

from benchmarks.engine.models import MEDIUM, folder_of
from benchmarks.environments import cache_folder
from benchmarks.findings import Finding

_STARTS = 5
_BLOCK = 16
_BLOCKS = 2048


def measure() -> list[Finding]:
    """All of them."""
    return [_cached_prefix(), *_waste(), *_load(), _ready()]


def _cached_prefix() -> Finding:
    seconds = _probe("prefix", str(folder_of(MEDIUM, cache_folder())))
    measured = f"{1e3 * seconds['cached']:,.0f} / {1e3 * seconds['cold']:,.0f} ms"
    return Finding("TTFT, 2,048-token prefix: cached / cold", measured, seconds["cached"] / seconds["cold"], 0.10)


def _load() -> list[Finding]:
    """Pages of the weights' own file are counted in the first figure; the system drops them when it needs the room."""
    peak = _probe("load", str(folder_of(MEDIUM, cache_folder())))
    rows = []
    for name, what in (("anonymous", "memory"), ("resident", "memory, mapped pages of the file included")):
        measured = f"{peak[name] / 1e6:,.0f} / {peak['weights'] / 1e6:,.0f} MB"
        rows.append(Finding(f"loading 0.5B: peak of {what} / weights", measured, peak[name] / peak["weights"], 1.15))
    return rows


def _ready() -> Finding:
    times = []
    for _ in range(_STARTS):
        begun = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.engine.probes", "ready", "sage-builtin"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            times.append(time.perf_counter() - begun)
            process.stdout.read()
    median = statistics.median(times)
    return Finding("built-in model: seconds from starting Python to ready", f"{median:.2f} s", median, 2.5)


def _waste() -> list[Finding]:
    """Sequences grow until the cache is full; no model is needed for that, only the scheduler."""
    from sagellm_core.engine_core.block_manager import BlockManager
    from sagellm_core.engine_core.plan import SampledToken, StepOutput
    from sagellm_core.engine_core.scheduler import Scheduler, SchedulerConfig
    from sagellm_protocol.sampling import SamplingParams

    draw = random.Random(5)
    blocks = BlockManager(_BLOCKS, _BLOCK, prefix_cache=False)
    scheduler = Scheduler(SchedulerConfig(256, 2048, 4096), blocks)
    for number in range(400):
        prompt = [draw.randrange(1000) for _ in range(draw.randint(32, 512))]
        scheduler.add(f"s{number}", prompt, SamplingParams(max_tokens=512))
    worst, fullest = 0.0, 0.0
    while (plan := scheduler.schedule()) is not None and not scheduler.preemptions:
        wasted = [
            len(table) * _BLOCK - length for table, length in zip(plan.block_tables, plan.context_lens, strict=True)
        ]
        worst = max(worst, *wasted)
        held = sum(item.num_computed for item in scheduler.running) + plan.num_tokens
        fullest = max(fullest, held / (_BLOCKS * _BLOCK))
        wanted = [seq_id for seq_id, samples in zip(plan.seq_ids, plan.samples, strict=True) if samples]
        scheduler.update(StepOutput(plan.step, {seq_id: [SampledToken(7)] for seq_id in wanted}))
    return [
        Finding("KV slots that a sequence holds and does not use, in blocks, at most",
                f"{worst:.0f} slots of {_BLOCK}", worst / _BLOCK, 1.0),
        Finding("share of the KV cache in use before anything is preempted",
                f"{_BLOCKS} blocks, {len(scheduler.running)} running", fullest, 0.96, at_least=True),
    ]  # fmt: skip


def _probe(name: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.engine.probes", name, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"probe {name}: {done.stderr.strip().splitlines()[-1][:300]}")
    values: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return values

"""Ranks and nodes beside one process: `python -m benchmarks.engine.parallel`. All sides run interleaved.

Every process computes on one thread, so that two processes have twice the cores of one: what is measured is how much of
that arrives. Needs two free cores or more.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass

from benchmarks.engine.models import SMALL, folder_of
from benchmarks.environments import cache_folder
from benchmarks.findings import Finding
from sagellm_core import DistributedRuntime, LLMEngine, LLMEngineConfig, PDLayout
from sagellm_protocol import Response, SamplingParams

_ROUNDS = 3
_PROMPT = 1000
_PROMPTS = 3
_WRITERS = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """One round on one side: milliseconds between tokens of running answers (99th percentile), milliseconds to the
    first token of long prompts, prompt tokens a second, MiB a second of blocks under way.
    """

    gap_ms: float
    ttft_ms: float
    prefill: float
    mib_s: float


def measure() -> list[Finding]:
    """Each side against one process."""
    return asyncio.run(_measure())


async def _measure() -> list[Finding]:
    folder = str(folder_of(SMALL, cache_folder()))
    one = LLMEngineConfig(model_path=folder, dtype="float32", backend_type="cpu", num_threads=1, max_model_len=2048)
    sides = {
        "one process": LLMEngine(one),
        "2 stages": LLMEngine(one.model_copy(update={"pipeline_parallel_size": 2})),
        "2 shares": LLMEngine(one.model_copy(update={"tensor_parallel_size": 2})),
        "prefill + decode node, shared memory": DistributedRuntime(one, PDLayout(transport="shm")),
        "prefill + decode node, TCP": DistributedRuntime(one, PDLayout(transport="tcp")),
    }
    rounds: dict[str, list[Seen]] = {name: [] for name in sides}
    for engine in sides.values():
        await engine.start()
    try:
        for number in range(_ROUNDS + 1):
            for name, engine in sides.items():
                seen = await _round(engine, random.Random(number))
                if number:  # the first one warms up
                    rounds[name].append(seen)
    finally:
        for engine in sides.values():
            await engine.stop()
    medians = {name: _median(seen) for name, seen in rounds.items()}
    base = medians.pop("one process")
    return [finding for name, seen in medians.items() for finding in _findings(name, seen, base)]


async def _round(engine: LLMEngine, draw: random.Random) -> Seen:
    """Long prompts arrive while answers are written; then long prompts alone."""
    writing = [
        asyncio.create_task(engine.generate(_tokens(draw, 8), sampling_params=_params(150))) for _ in range(_WRITERS)
    ]
    await asyncio.sleep(0.05)
    read = await _read(engine, draw)
    gaps = sorted(gap for each in await asyncio.gather(*writing) for gap in each.metrics.itl_list)
    begun = asyncio.get_running_loop().time()
    alone = await _read(engine, draw)
    seconds = asyncio.get_running_loop().time() - begun
    moved = sum(each.metrics.kv_transfer_bytes for each in alone) / 2**20
    under_way = sum(each.metrics.kv_transfer_ms for each in alone) / 1000
    return Seen(
        gaps[int(0.99 * len(gaps))],
        statistics.mean(each.metrics.ttft_ms for each in read),
        _PROMPTS * _PROMPT / seconds,
        moved / under_way if under_way else 0.0,
    )


async def _read(engine: LLMEngine, draw: random.Random) -> list[Response]:
    prompts = [_tokens(draw, _PROMPT) for _ in range(_PROMPTS)]
    return await asyncio.gather(*(engine.generate(prompt, sampling_params=_params(2)) for prompt in prompts))


def _tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(10, 8000) for _ in range(count)]


def _params(count: int) -> SamplingParams:
    return SamplingParams(max_tokens=count, ignore_eos=True)


def _median(seen: list[Seen]) -> Seen:
    columns = [[getattr(each, name) for each in seen] for name in ("gap_ms", "ttft_ms", "prefill", "mib_s")]
    return Seen(*(statistics.median(column) for column in columns))


def _findings(name: str, seen: Seen, base: Seen) -> list[Finding]:
    gap = f"{seen.gap_ms:.1f} / {base.gap_ms:.1f} ms"
    ttft = f"{seen.ttft_ms:.0f} / {base.ttft_ms:.0f} ms"
    ttft += f"; blocks at {seen.mib_s:,.0f} MiB/s" if seen.mib_s else ""
    prefill = f"{seen.prefill:,.0f} / {base.prefill:,.0f} tok/s"
    if not seen.mib_s:
        return [Finding(f"{name} / one process: prefill", prefill, seen.prefill / base.prefill, 1.0, at_least=True)]
    return [
        Finding(f"{name} / one process: p99 between tokens beside long prompts", gap, seen.gap_ms / base.gap_ms, 1.0),
        Finding(f"{name} / one process: first token of those prompts", ttft, seen.ttft_ms / base.ttft_ms, 1.5),
    ]


if __name__ == "__main__":
    for finding in measure():
        print(finding.row())

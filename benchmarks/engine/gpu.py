"""`python -m benchmarks.engine.gpu [--no-write] [--shapes 0.5B,7B]`: the engine on an NVIDIA GPU, beside transformers.

Both sides are in this process with the same weights (random, bfloat16) and take turns; what the device can do at all
(copy bandwidth, matrix products) is measured in the same run. Writes GPU.md beside this file. Without a GPU it says so
and ends well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.models import LARGE, MEDIUM, Shape, folder_of
from benchmarks.engine.scenarios import Scenario
from benchmarks.environments import cache_folder
from benchmarks.findings import Finding
from sagellm_core.backends import BackendConfig
from sagellm_core.engine_core.plan import BatchType, SchedulerOutput

_ROUNDS = 3
_STREAMS = 64
_ONE = Scenario("one stream", (32,), 256)
_MANY = Scenario("64 streams", (128,) * _STREAMS, 256)
_PREFILL = Scenario("prefill", (2048,) * 4, 1, "prompt tokens")
_STEP_CONTEXT, _LONGEST, _PAGE = 512, 4096, 16
_HEAD = """# The engine on a GPU

Written by `make bench-gpu`; do not edit. {device}, torch {torch}, triton {triton}. Random weights in bfloat16, greedy,
prefix caching off; medians of {rounds} rounds in which both sides took turns. Copies move {copy:.2f} TB/s (bytes read
and written), matrix products of 8192 cubed run at {matmul:.0f} TFLOP/s.

| what | measured | ratio | has to be | reached |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device does at best: bytes a second of a copy, operations a second of a matrix product."""

    copy: float
    matmul: float


class Ours:
    """`LLMEngine` on an event loop of its own."""

    name = "ours"

    def __init__(self, folder: Path, quantization: str | None = None) -> None:
        from sagellm_core import LLMEngine, LLMEngineConfig

        self.loop = asyncio.new_event_loop()
        settings = {
            "model_path": str(folder),
            "backend_type": "cuda",
            "dtype": "bfloat16",
            "quantization": quantization,
            "enable_prefix_cache": False,
            "max_batch_size": _STREAMS,
            "max_model_len": 4096,
        }
        self.engine = LLMEngine(LLMEngineConfig.model_validate(settings))
        self.loop.run_until_complete(self.engine.start())

    def run(self, prompts: list[list[int]], max_tokens: int) -> None:
        self.loop.run_until_complete(self._all(prompts, max_tokens))

    def close(self) -> None:
        self.loop.run_until_complete(self.engine.stop())
        self.loop.close()

    async def _all(self, prompts: list[list[int]], max_tokens: int) -> None:
        from sagellm_protocol import SamplingParams

        greedy = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
        answers = await asyncio.gather(*(self.engine.generate(ids, sampling_params=greedy) for ids in prompts))
        assert all(len(answer.output_tokens) == max_tokens for answer in answers)


class Transformers:
    """`generate` over a padded batch."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.to("cuda").eval()

    def run(self, prompts: list[list[int]], max_tokens: int) -> None:
        import torch

        ids = torch.tensor(prompts, device="cuda")
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                min_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        assert out.shape[1] == ids.shape[1] + max_tokens

    def close(self) -> None:
        del self.model


def ceilings() -> Ceilings:
    """Measured on this device now: a copy of 4 GB, and products of random bfloat16 matrices."""
    import torch

    source = torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = _device_seconds(lambda: target.copy_(source))
    a, b = torch.randn(2, 8192, 8192, device="cuda").bfloat16()
    product = _device_seconds(lambda: torch.mm(a, b))
    return Ceilings(2 * (4 << 30) / copied, 2 * 8192**3 / product)


def measure(shape: Shape, limits: Ceilings) -> list[Finding]:
    """All scenarios of a model, both sides taking turns."""
    folder = folder_of(shape, cache_folder())
    sides: list[Ours | Transformers] = [Ours(folder), Transformers(folder)]
    rates: dict[tuple[str, str], float] = {}
    for scenario in (_ONE, _MANY, _PREFILL):
        times: dict[str, list[float]] = {side.name: [] for side in sides}
        for turn in range(_ROUNDS + 1):
            for side in sides:
                took = _wall_seconds(side, scenario, shape)
                if turn:
                    times[side.name].append(took)
        for name, taken in times.items():
            rates[name, scenario.name] = scenario.counted / statistics.median(taken)
    for side in sides:
        side.close()
    sides.clear()
    _let_go()
    return _judge(shape, rates, limits)


def _judge(shape: Shape, rates: dict[tuple[str, str], float], limits: Ceilings) -> list[Finding]:
    """The targets: of the bandwidth and the matrix rate for the large model, of transformers for both."""
    found = []
    context = _ONE.lengths[0] + _ONE.max_tokens / 2
    least = (2 * shape.parameters + context * shape.kv_bytes(2)) / limits.copy
    one, prefill = rates["ours", _ONE.name], rates["ours", _PREFILL.name]
    large = shape is LARGE
    measured = f"{one:,.0f} tok/s; limit of the memory {1 / least:,.0f}"
    found.append(Finding(f"{shape.title}, one stream", measured, one * least, 0.85 if large else 0.5, at_least=True))
    if large:
        many = rates["ours", _MANY.name]
        found.append(
            Finding("7B, 64 streams, in 12,000 tok/s", f"{many:,.0f} tok/s", many / 12_000, 1.0, at_least=True)
        )
        share = 2 * shape.parameters * prefill / limits.matmul
        found.append(Finding("7B, prefill, of the matrix rate", f"{prefill:,.0f} tok/s", share, 0.6, at_least=True))
    for scenario in (_ONE, _MANY, _PREFILL):
        ours, theirs = rates["ours", scenario.name], rates["transformers", scenario.name]
        bound = 1.0 if scenario is _PREFILL else 5.0
        words = f"{ours:,.0f} against {theirs:,.0f} tok/s"
        what = f"{shape.title}, {scenario.name}, over transformers"
        found.append(Finding(what, words, ours / theirs, bound, at_least=True))
    return found


def decode_step(shape: Shape, quantization: str | None = None) -> Finding:
    """The device's time for one recorded step of one sequence with a context of 512 tokens, in 0.45 ms."""
    from sagellm_core.backends.cuda import CUDABackend
    from sagellm_core.layers.cuda.graphs import RecordedDecode
    from sagellm_core.models import read_model_config
    from sagellm_core.models.load import load_model
    from sagellm_core.models.weights import WeightReader

    folder = folder_of(shape, cache_folder())
    config = read_model_config(folder)
    backend = CUDABackend(BackendConfig("cuda", quantization=quantization))
    backend.prepare_thread(config, None)
    dtype = backend.dtype("bfloat16", config)
    with WeightReader(folder) as reader:
        model = load_model(config, reader, dtype, backend, _LONGEST)
    blocks = _STEP_CONTEXT // _PAGE
    shape_of_cache = (2, blocks + backend.spare_blocks, _PAGE, model.num_kv_heads, config.head_dim)
    caches = [backend.new_cache(shape_of_cache, dtype) for _ in range(model.num_layers)]
    steps = backend.capture(model, backend.attention(config, _PAGE), caches, 1, _LONGEST)
    assert isinstance(steps, RecordedDecode)
    last = _STEP_CONTEXT - 1
    table = list(range(blocks))
    steps.run(SchedulerOutput(1, BatchType.DECODE, ["s"], [5], [last], [last], [1], [_STEP_CONTEXT], [table], [True]))
    took = min(_device_seconds(steps.again) for _ in range(3))
    del steps, caches, model
    _let_go()
    what = f"{shape.title}, a step of one sequence{', fp8' if quantization else ''}, in 0.45 ms"
    return Finding(what, f"{1e3 * took:.3f} ms", took / 0.45e-3, 1.0)


def _wall_seconds(side: Ours | Transformers, scenario: Scenario, shape: Shape) -> float:
    import torch

    prompts = scenario.prompts(shape)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    side.run(prompts, scenario.max_tokens)
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _device_seconds(work: Callable[[], object]) -> float:
    """Median of twenty, between events, once warm."""
    import torch

    for _ in range(3):
        work()
    times: list[float] = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def _let_go() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    """Measure, print, write; without a GPU, say why there is nothing to do."""
    from sagellm_core.backends.cuda import CUDABackend

    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.gpu", description=__doc__)
    parser.add_argument("--shapes", default="0.5B,7B", help="which models, by title (all)")
    parser.add_argument("--no-write", action="store_true", help="print the report alone")
    arguments = parser.parse_args()
    if not CUDABackend.is_available():
        print(f"skipped: {CUDABackend.missing()}")
        return
    import torch
    import triton

    limits = ceilings()
    findings = []
    for shape in (MEDIUM, LARGE):
        if shape.title in arguments.shapes.split(","):
            print(f"measuring {shape.title}", file=sys.stderr, flush=True)
            findings += measure(shape, limits)
            if shape is MEDIUM:
                findings += [decode_step(shape), decode_step(shape, "fp8")]
    head = _HEAD.format(
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        triton=triton.__version__,
        rounds=_ROUNDS,
        copy=limits.copy / 1e12,
        matmul=limits.matmul / 1e12,
    )
    text = head + "\n".join(finding.row() for finding in findings) + "\n"
    print(text, end="")
    if not arguments.no_write:
        (Path(__file__).parent / "GPU.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

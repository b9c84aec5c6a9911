"""What 8-bit floats cost in quality: perplexity of the built-in model, weights and inputs rounded as on a GPU."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from tests.helpers.plans import step_of
from torch import Tensor

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.backends import BackendConfig
from sagellm_core.layers.attention import TorchPagedAttention
from sagellm_core.models import locate_model, read_model_config
from sagellm_core.models.load import load_model
from sagellm_core.models.weights import WeightReader
from sagellm_protocol import SamplingParams

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.interpreted import InterpretedHopper

from sagellm_core.layers.cuda import linear
from sagellm_core.layers.cuda.fused import FusedDecoder

pytestmark = [pytest.mark.spec("E5"), pytest.mark.slow]
BLOCK = 16


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_rows` as a GPU rounds; the interpreter loses carries."""
    scales = x.abs().amax(1).float().clamp(min=1e-12) / 448
    return (x / scales[:, None]).to(torch.float8_e4m3fn), scales


async def samples(count: int, length: int) -> list[list[int]]:
    """What the model itself says at temperature 1: text that it should find likely."""
    engine = LLMEngine(LLMEngineConfig(model_path="sage-builtin", backend_type="cpu", dtype="float32"))
    await engine.start()
    try:
        asked = [
            SamplingParams(temperature=1.0, seed=seed, max_tokens=length, ignore_eos=True) for seed in range(count)
        ]
        found = await asyncio.gather(*(engine.generate("What is SAGE?", sampling_params=each) for each in asked))
        return [each.output_tokens for each in found]
    finally:
        await engine.stop()


def perplexity(quantization: str | None, texts: list[list[int]]) -> float:
    """Of the built-in model in float32 on texts, each in one step of the torch reference."""
    folder = locate_model("sage-builtin")
    config = read_model_config(folder)
    backend = InterpretedHopper(BackendConfig("interpreted-hopper", quantization=quantization))
    with WeightReader(folder) as reader:
        model = load_model(config, reader, torch.float32, backend, 1024)
    assert isinstance(model, FusedDecoder)
    attention = TorchPagedAttention(BLOCK, torch.device("cpu"))
    losses = []
    for tokens in texts:
        plan = step_of([(len(tokens), len(tokens))], BLOCK, seed=0)
        shape = (2, len(plan.block_tables[0]) + 3, BLOCK, model.num_kv_heads, config.head_dim)
        caches = [torch.zeros(shape) for _ in range(model.num_layers)]
        ids, meta = torch.tensor(tokens), attention.prepare(plan, torch.float32)
        with torch.inference_mode():
            hidden = model.decoder.forward(ids, torch.tensor(plan.positions), caches, attention, meta)
            logits = model.decoder.logits(hidden)[:-1]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
    return math.exp(torch.cat(losses).mean().item())


async def test_perplexity_stays_within_five_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "quantize_rows", rounded_rows)
    texts = await samples(8, 120)
    exact, rounded = perplexity(None, texts), perplexity("fp8", texts)
    assert 1 < exact < 30
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)

"""Whole models on the CPU's kernels: torch's tokens, whatever is in the batch; smaller weights; quiet when idle."""

from __future__ import annotations

import asyncio
import time
from array import array
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.helpers.forward import hidden_states, logits
from tests.helpers.tiny_models import OWN, expected_tokens, tiny_model
from tests.unit.engine.test_precision import QUESTIONS, drawn

from sagellm_core import LLMEngine, LLMEngineConfig, builtin
from sagellm_core.backends import BackendConfig, cpu, create_backend
from sagellm_core.backends.base import attention_for
from sagellm_core.engine_core import BatchType, SchedulerOutput
from sagellm_core.layers.cpu import FusedDecoder, QuantisedLinear
from sagellm_core.layers.cpu.build import compiled
from sagellm_core.models.base import CausalLM
from sagellm_core.models.config import read_model_config
from sagellm_core.models.load import load_model
from sagellm_core.models.weights import WeightReader
from sagellm_protocol.sampling import SamplingParams

pytestmark = [pytest.mark.spec("E5", "E7")]
needs_kernels = pytest.mark.skipif(compiled() is None, reason="needs a C++ compiler")

PROMPTS = [[5, 9, 13, 44, 7], list(range(20, 60)), [77], [3, 1, 4, 1, 5, 9, 2, 6] * 9]
FUSED = [family for family in OWN if family != "gpt2"]


def loaded(folder: Path, dtype: str = "float32", quantization: str | None = None) -> CausalLM:
    config = read_model_config(folder)
    backend = create_backend(BackendConfig("cpu", quantization=quantization))
    backend.prepare_thread(config, 2)
    with WeightReader(folder) as reader:
        return load_model(config, reader, backend.dtype(dtype, config), backend, 256)


async def tokens(folder: Path, prompts: list[list[int]], together: bool = True, **settings: Any) -> list[list[int]]:
    """Twelve greedy tokens for each prompt, asked for at once or one after the other."""
    config = LLMEngineConfig(
        model_path=str(folder),
        backend_type="cpu",
        max_model_len=128,
        num_threads=2,
        **settings,
    )
    engine = LLMEngine(config)
    await engine.start()
    try:
        greedy = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0)
        batches = [prompts] if together else [[prompt] for prompt in prompts]
        found = []
        for batch in batches:
            answers = await asyncio.gather(*(engine.generate(each, sampling_params=greedy) for each in batch))
            found += [answer.output_tokens for answer in answers]
        return found
    finally:
        await engine.stop()


@needs_kernels
@pytest.mark.parametrize("family", FUSED)
def test_families_run_in_one_call(family: str) -> None:
    assert isinstance(loaded(tiny_model(family)), FusedDecoder)


@needs_kernels
def test_other_models_fall_through() -> None:
    assert not isinstance(loaded(tiny_model("gpt2")), FusedDecoder)


@pytest.mark.parametrize("family", OWN)
async def test_torch_gives_the_same_tokens_without_kernels(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model(family)
    expected = [expected_tokens(folder, prompt, 12) for prompt in PROMPTS[:2]]
    assert await tokens(folder, PROMPTS[:2], dtype="float32") == expected
    monkeypatch.setattr(cpu, "kernels", lambda: None)
    assert await tokens(folder, PROMPTS[:2], dtype="float32") == expected


@needs_kernels
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
async def test_half_precision_does_not_depend_on_the_batch(quantization: str | None) -> None:
    """Not on who else runs, and not on how prompts are cut into steps: the same bits, so the same tokens."""
    folder = tiny_model("qwen2")
    settings: dict[str, Any] = {"dtype": "bfloat16", "quantization": quantization}
    alone = await tokens(folder, PROMPTS, together=False, enable_prefix_cache=False, **settings)
    assert await tokens(folder, PROMPTS, **settings) == alone
    assert await tokens(folder, PROMPTS, max_num_batched_tokens=32, max_batch_size=4, **settings) == alone


def perplexity(texts: list[tuple[list[int], int]], quantization: str | None) -> float:
    model = loaded(builtin.path(), quantization=quantization)
    losses = []
    for ids, first in texts:
        rows = logits(model, hidden_states(model, torch.tensor(ids), ids))
        losses.append(
            torch.nn.functional.cross_entropy(rows[first - 1 : -1], torch.tensor(ids)[first:], reduction="none")
        )
    return float(torch.cat(losses).mean().exp())


def test_perplexity_of_smaller_weights() -> None:
    """Of the built-in model over its own answers, against full precision: int8 within 2 %, int4 within 25 %."""
    texts = [drawn(question) for question in QUESTIONS]
    full = perplexity(texts, None)
    int8, int4 = perplexity(texts, "int8"), perplexity(texts, "int4")
    assert full != int8 == pytest.approx(full, rel=0.02)
    assert int8 != int4 == pytest.approx(full, rel=0.25)


def test_smaller_weights_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model("llama", tie_word_embeddings=True)
    ids = PROMPTS[1]
    results = []
    for missing in (False, True):
        if missing:
            monkeypatch.setattr(cpu, "kernels", lambda: None)
        model = loaded(folder, quantization="int8")
        if missing:
            assert isinstance(getattr(model, "head", None), QuantisedLinear)
        results.append(logits(model, hidden_states(model, torch.tensor(ids), ids)))
    assert float((results[0] - results[1]).norm() / results[1].norm()) < 0.02


@needs_kernels
async def test_an_idle_engine_uses_no_processor() -> None:
    config = LLMEngineConfig(model_path=str(tiny_model("llama")), backend_type="cpu", num_threads=2)
    engine = LLMEngine(config)
    await engine.start()
    try:
        await engine.generate([5, 6, 7], sampling_params=SamplingParams(max_tokens=8, ignore_eos=True))
        await asyncio.sleep(0.2)
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.15
    finally:
        await engine.stop()


@needs_kernels
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_step_chooses_among_the_tokens_that_masks_allow(family: str) -> None:
    """Untied and tied: of some rows of a step with pieces, their logits and the likeliest allowed tokens."""
    model = loaded(tiny_model(family))
    assert isinstance(model, FusedDecoder)
    words, size = -(-model.config.vocab_size // 32), model.config.vocab_size
    texts = [[5, 9, 13], [44], [7, 3]]
    expected = torch.cat([logits(model, hidden_states(model, torch.tensor(text), text)) for text in texts])
    rows = [1, 2, 3, 5]
    allowed = torch.rand(len(rows), size, generator=torch.Generator().manual_seed(1)) < 0.02
    allowed[2] = True
    allowed[3] = False
    packed = numpy.zeros((len(rows), 4 * words), dtype=numpy.uint8)
    bits = numpy.packbits(allowed.numpy(), axis=1, bitorder="little")
    packed[:, : bits.shape[1]] = bits
    backend = cpu.CPUBackend(BackendConfig("cpu"))
    backend.dtype("float32", model.config)
    attention = attention_for(backend, model.config, 16)
    shape = (2, 3, 16, model.num_kv_heads, model.config.head_dim)
    caches = [backend.new_cache(shape, model.dtype) for _ in range(model.num_layers)]
    steps = backend.capture(model, attention, caches, 4, 64)
    assert steps is not None
    plan = SchedulerOutput(
        1,
        BatchType.MIXED,
        ["a", "b", "c"],
        [token for text in texts for token in text],
        [at for text in texts for at in range(len(text))],
        [16 * number + at for number, text in enumerate(texts) for at in range(len(text))],
        [len(text) for text in texts],
        [len(text) for text in texts],
        [[0], [1], [2]],
        [True] * 3,
    )
    masks = array("q", [row.ctypes.data for row in packed])
    masks[2] = 0
    with torch.inference_mode():
        got = steps.run(plan, rows, masks)
        assert got is not None
        torch.testing.assert_close(got.logits, expected[rows])
        best = got.logits.masked_fill(~allowed, float("-inf")).argmax(-1).tolist()
        assert got.greedy == [*best[:3], -1]
        free = steps.run(plan, rows)
    assert free is not None
    assert free.greedy == expected[rows].argmax(-1).tolist()

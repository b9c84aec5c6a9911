"""Whole models on the GPU kernels, interpreted: the tokens of `transformers`, through recorded steps or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.plans import Batch
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core.backends import base
from sagellm_core.config import LLMEngineConfig
from sagellm_core.models import read_model_config
from sagellm_core.worker import Worker
from sagellm_protocol import SamplingParams

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.interpreted import InterpretedBackend

from sagellm_core.layers.cuda.fused import FusedDecoder
from sagellm_core.layers.cuda.kernels import FEW_ROWS
from sagellm_core.layers.cuda.linear import float8_linear

pytestmark = [pytest.mark.spec("E5", "E7"), pytest.mark.slow]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backends "interpreted" and "interpreted-hopper" are there."""
    monkeypatch.setitem(base._OURS, "interpreted", "tests.helpers.interpreted:InterpretedBackend")
    monkeypatch.setitem(base._OURS, "interpreted-hopper", "tests.helpers.interpreted:InterpretedHopper")
    base.backend_names.cache_clear()
    yield
    base.backend_names.cache_clear()


def worker(folder: Path, **config: Any) -> Worker:
    """A loaded worker of few blocks; `backend_type` and the rest may be changed."""
    values = {
        "backend_type": "interpreted",
        "dtype": "float32",
        "max_batch_size": 4,
        "max_model_len": 96,
        "kv_cache_block_size": 4,
        "kv_cache_num_blocks": 64,
        **config,
    }
    made = Worker(LLMEngineConfig(model_path=str(folder), **values), read_model_config(folder), folder, 96)
    made.load()
    return made


def batch(folder: Path, prompts: list[list[int]], params: SamplingParams, **config: Any) -> Batch:
    runner = worker(folder, **config)
    found = Batch(runner.execute, 4, 64)
    for index, prompt in enumerate(prompts):
        found.add(f"s{index}", prompt, params)
    return found


def prompts_of(*lengths: int) -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(5, 300) for _ in range(length)] for length in lengths]


more = [pytest.param(family, marks=pytest.mark.exhaustive) for family in ("qwen2", "qwen3", "mistral", "gpt2")]


@pytest.mark.parametrize("family", ["llama", *more])
def test_greedy_tokens_are_those_of_transformers(family: str) -> None:
    """Uneven prompts: first in chunks beside decodes, then recorded steps; one has a row that nobody uses."""
    folder = tiny_model(family)
    prompts = prompts_of(3, 26, 11)
    running = batch(folder, prompts, GREEDY)
    for _ in range(6):
        running.step(chunk=12)
    for (name, each), prompt in zip(running.sequences.items(), prompts, strict=True):
        new = each.tokens[len(prompt) :]
        assert new == expected_tokens(folder, prompt, len(new)), name
    assert sum(InterpretedBackend.replays.values()) == 3


def test_own_decoders_run_fused_and_a_single_row_reads_the_splits() -> None:
    folder = tiny_model("qwen3")
    running = batch(folder, prompts_of(70), GREEDY, max_batch_size=1)
    for _ in range(4):
        running.step(chunk=70)
    assert running.sequences["s0"].tokens[70:] == expected_tokens(folder, prompts_of(70)[0], 4)


@pytest.mark.exhaustive
def test_a_foreign_model_runs_on_the_kernels_too() -> None:
    folder = tiny_model("gpt_neox")
    prompts = prompts_of(9, 4)
    running = batch(folder, prompts, GREEDY)
    for _ in range(4):
        running.step(chunk=9)
    found = [each.tokens[-4:] for each in running.sequences.values()]
    assert found == [expected_tokens(folder, prompt, 4) for prompt in prompts]


def test_what_wants_more_than_the_likeliest_token_gets_it_from_a_recorded_step() -> None:
    """Logits and hidden states of a recorded step are those of the model: draws and log-probabilities agree."""
    folder = tiny_model("llama")
    params = SamplingParams(temperature=0.9, seed=3, ignore_eos=True, logprobs=2, top_k=20)
    both = [batch(folder, prompts_of(7, 5), params, backend_type=kind) for kind in ("interpreted", "cpu")]
    for running in both:
        for _ in range(4):
            running.step(chunk=9)
    assert both[0].sequences["s1"].tokens == both[1].sequences["s1"].tokens
    for ours, reference in zip(*(running.outputs for running in both), strict=True):
        for token, expected in zip(ours.tokens["s0"], reference.tokens["s0"], strict=True):
            assert token.token_id == expected.token_id
            assert token.logprob == pytest.approx(expected.logprob, abs=1e-4)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_a_row_without_usable_numbers_is_told_and_the_others_go_on() -> None:
    folder = tiny_model("llama")
    prompts = prompts_of(5, 6)
    made = worker(folder)
    running = Batch(made.execute, 4, 64)
    for index, prompt in enumerate(prompts):
        running.add(f"s{index}", prompt, GREEDY)
    running.step(chunk=9)
    assert made._runner is not None
    made._runner.caches[0][:, running.sequences["s0"].blocks[0]] = float("nan")
    output = running.step(chunk=9)
    assert output.tokens["s0"][0].token_id == -1
    assert output.tokens["s1"][0].token_id == expected_tokens(folder, prompts[1], 2)[1]


def test_the_decoder_of_an_own_family_is_fused_and_that_of_gpt2_is_not() -> None:
    for family, fused in (("llama", True), ("gpt2", False)):
        made = worker(tiny_model(family))
        assert made._runner is not None
        assert isinstance(made._runner.model, FusedDecoder) == fused


@pytest.mark.parametrize("rows", [1, 3])
def test_eight_bit_floats_stay_close(rows: int) -> None:
    """Logits of a model with e4m3 matrices, at few rows: their inputs are exact."""
    folder = tiny_model("llama", hidden_size=64, intermediate_size=128)
    prompt = prompts_of(rows)[0]
    logits = []
    for config in ({}, {"backend_type": "interpreted-hopper", "quantization": "fp8"}):
        made = worker(folder, **config)
        runner = made._runner
        assert runner is not None
        running = Batch(made.execute, 4, 64)
        running.add("s", prompt, GREEDY)
        with torch.inference_mode():
            logits.append(runner.model.logits(runner._forward(running.plan(chunk=rows))[-1:]))
    error = (logits[1] - logits[0]).norm() / logits[0].norm()
    assert 1e-4 < error < 0.12


@pytest.mark.parametrize("rows", [2, 20])
def test_a_product_in_eight_bit_floats(rows: int) -> None:
    """With many rows the input is rounded too, a scale a row (here with the interpreter's lost carries)."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(rows, 64) * 3
    expected = torch.nn.functional.linear(x, weight, bias)
    error = (float8_linear(weight, bias)(x) - expected).norm() / expected.norm()
    assert error < (0.04 if rows <= FEW_ROWS else 0.08)
    odd = float8_linear(weight[:90], None)
    assert odd.scales is None
    torch.testing.assert_close(odd(x), x @ weight[:90].t())

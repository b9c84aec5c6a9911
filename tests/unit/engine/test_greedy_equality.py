"""Greedy output is token for token that of `transformers`' generate, however the engine gets there (SPEC E4, E7).

The engine's core is driven step by step, so that every test says how the work was cut: in chunks, beside others, after
preemption, on cached prefixes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.core import EngineCore, Submission, Update
from sagellm_core.engine_core.scheduler import SchedulerConfig
from sagellm_core.models.bundle import open_bundle
from sagellm_protocol.sampling import SamplingParams

pytestmark = [pytest.mark.spec("E4", "E7"), pytest.mark.slow]

Expected = Callable[..., list[int]]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "mscale": 0.7,
    "mscale_all_dim": 1.2,
    "beta_fast": 4,
    "truncate": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "tied": {"tie_word_embeddings": True},
    "multi-query": {"num_key_value_heads": 1},
    "all heads": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "llama3": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
    "yarn, scaled": {"rope_parameters": YARN},
    "shards": {"shards": 3},
}


@dataclass
class Run:
    """A core with everything that came out of it."""

    core: EngineCore
    tokens: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)

    def submit(self, name: str, prompt: Sequence[int], params: SamplingParams, **more: Any) -> None:
        self.tokens[name] = []
        self.core.submit(Submission(name, list(prompt), params, **more))

    def take(self, updates: list[Update]) -> None:
        for update in updates:
            assert update.error is None, update.error
            self.tokens[update.seq_id] += [token.token_id for token in update.tokens]
            if update.finish_reason is not None:
                self.ends[update.seq_id] = update.finish_reason

    def until_done(self) -> None:
        self.core.turn()
        while self.core.scheduler.has_work:
            self.core.turn()


def start(
    folder: Path,
    *,
    budget: int = 512,
    batch: int = 16,
    blocks: int | None = None,
    size: int = 16,
    prefix: bool = True,
    backend: str = "cpu",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> Run:
    config = LLMEngineConfig(
        model_path=str(folder),
        kv_cache_num_blocks=blocks,
        kv_cache_block_size=size,
        dtype=dtype,
        backend_type=backend,
    )
    bundle = open_bundle(config)
    run: Run
    core = EngineCore(
        bundle.new_executor,
        SchedulerConfig(batch, budget, bundle.max_model_len),
        lambda updates: run.take(updates),
        block_size=size,
        prefix_cache=prefix,
    )
    run = Run(core)
    core.start()
    return run


def prompts_of(count: int, seed: int, *, longest: int = 60) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(5, 260) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def greedy(max_tokens: int, *, ignore_eos: bool = True) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, ignore_eos=ignore_eos)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_alone_and_beside_others(
    name: str, llama_folder: Callable[..., Path], expected_tokens: Expected
) -> None:
    folder = llama_folder(**VARIANTS[name])
    prompts = prompts_of(3, seed=len(name))
    wanted = [expected_tokens(folder, prompt, 16, ignore_eos=True) for prompt in prompts]
    run = start(folder, prefix=False)
    run.submit("alone", prompts[0], greedy(16))
    run.until_done()
    assert run.tokens["alone"] == wanted[0]
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(16))
        run.core.turn()
    run.until_done()
    assert [run.tokens[str(index)] for index in range(len(prompts))] == wanted


@pytest.mark.parametrize("budget", [4, 7, 33])
def test_prompts_cut_into_chunks(budget: int, tiny_llama: Path, expected_tokens: Expected) -> None:
    prompts = prompts_of(4, seed=budget, longest=100)
    run = start(tiny_llama, budget=budget, batch=4, size=8)
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(16))
    run.until_done()
    for index, prompt in enumerate(prompts):
        assert run.tokens[str(index)] == expected_tokens(tiny_llama, prompt, 16, ignore_eos=True)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_starved_cache(prefix: bool, tiny_llama: Path, expected_tokens: Expected) -> None:
    prompts = prompts_of(6, seed=3, longest=40)
    run = start(tiny_llama, budget=24, batch=6, blocks=24, size=4, prefix=prefix)
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(40))
    run.until_done()
    assert run.core.scheduler.preemptions > 0
    for index, prompt in enumerate(prompts):
        assert run.tokens[str(index)] == expected_tokens(tiny_llama, prompt, 40, ignore_eos=True)


def test_prefix_hits(tiny_llama: Path, expected_tokens: Expected) -> None:
    shared = prompts_of(1, seed=9)[0] * 3
    tails = prompts_of(4, seed=10, longest=12)
    run = start(tiny_llama, size=8, budget=64)
    for index, tail in enumerate(tails):
        run.submit(str(index), shared + tail, greedy(20))
        run.core.turn()
        run.core.turn()
    run.until_done()
    assert run.core.stats.prefix_hit_tokens > 0
    for index, tail in enumerate(tails):
        assert run.tokens[str(index)] == expected_tokens(tiny_llama, shared + tail, 20, ignore_eos=True)


def test_an_answer_ends_at_the_end_token_as_in_transformers(tiny_llama: Path, expected_tokens: Expected) -> None:
    prompts = prompts_of(12, seed=4, longest=20)
    wanted = [expected_tokens(tiny_llama, prompt, 60) for prompt in prompts]
    assert any(tokens[-1] == 1 for tokens in wanted), "no prompt of this seed ends by itself"
    run = start(tiny_llama)
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(60, ignore_eos=False), stop_ids=frozenset({1}))
    run.until_done()
    assert [run.tokens[str(index)] for index in range(len(prompts))] == wanted
    assert {run.ends[str(i)] for i, tokens in enumerate(wanted) if tokens[-1] == 1} == {"stop"}


def test_the_built_in_model(expected_tokens: Expected) -> None:
    from sagellm_core import builtin

    folder = builtin.path()
    bundle = open_bundle(LLMEngineConfig(model_path=str(folder)))
    questions = ["What is SAGE?", "Which port does the gateway use?", "Sort: 3 1 2", "Say: hello world"]
    run = start(folder, budget=32)
    prompts = []
    for index, question in enumerate(questions):
        text = f"<|bos|><|user|>{question}<|end|><|assistant|>"
        prompts.append(bundle.tokenizer.encode(text, add_special_tokens=False))
        run.submit(str(index), prompts[-1], greedy(24))
    run.until_done()
    for index, prompt in enumerate(prompts):
        assert run.tokens[str(index)] == expected_tokens(folder, prompt, 24, ignore_eos=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near(
    dtype: Literal["bfloat16", "float16"], tiny_llama: Path, expected_tokens: Expected
) -> None:
    """The first token, where rounding has had no time to add up, is mostly that of float32."""
    prompts = prompts_of(20, seed=6)
    run = start(tiny_llama, dtype=dtype)
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(4))
    run.until_done()
    assert run.core.stats.dtype == dtype
    same = [run.tokens[str(i)][:1] == expected_tokens(tiny_llama, prompt, 1) for i, prompt in enumerate(prompts)]
    assert sum(same) >= 16


@pytest.mark.gpu
def test_on_a_gpu(tiny_llama: Path, expected_tokens: Expected) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    prompts = prompts_of(4, seed=12)
    run = start(tiny_llama, budget=24, backend="cuda")
    for index, prompt in enumerate(prompts):
        run.submit(str(index), prompt, greedy(16))
    run.until_done()
    for index, prompt in enumerate(prompts):
        assert run.tokens[str(index)] == expected_tokens(tiny_llama, prompt, 16, ignore_eos=True)

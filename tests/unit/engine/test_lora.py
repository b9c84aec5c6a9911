"""LoRA adapters served together: each answers as the model would into which it is merged (SPEC E7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.lora import MODULES, RANK, merged, write_adapter
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams

PROMPT = [40, 7, 112, 55, 201, 9, 33, 18, 90, 150, 61, 73, 20, 5, 99, 100, 12, 47]
GREEDY = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0.0)


@asynccontextmanager
async def engine_with(base: Path, adapters: dict[str, Path], **changes: Any) -> AsyncGenerator[LLMEngine, None]:
    settings: dict[str, Any] = {
        "dtype": "float32",
        "backend_type": "cpu",
        "max_model_len": 128,
        "kv_cache_block_size": 4,
    } | changes
    folders = {name: str(folder) for name, folder in adapters.items()}
    engine = LLMEngine(LLMEngineConfig(model_path=str(base), lora_adapters=folders, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def ask(engine: LLMEngine, adapter: str, prompt: list[int] | None = None) -> list[int]:
    request = Request(
        request_id=f"{adapter}-{id(prompt)}", prompt=prompt or PROMPT, sampling_params=GREEDY, adapter=adapter
    )
    return (await engine.complete(request)).output_tokens


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base model, two adapters for it (one of few modules), and both merged."""
    root = tmp_path_factory.mktemp("lora")
    base = tiny_model("llama")
    few = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    folders = {
        "base": base,
        "all": write_adapter(root / "all", base),
        "few": write_adapter(root / "few", base, modules=few, seed=2, use_rslora=True),
    }
    return folders | {f"{name} merged": merged(root / f"{name}-merged", base, folders[name]) for name in ("all", "few")}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
async def test_an_adapter_gives_the_tokens_of_the_merged_model(family: str, tmp_path: Path) -> None:
    base = tiny_model(family)
    adapter = write_adapter(tmp_path / "adapter", base, modules=MODULES["gpt2" if family == "gpt2" else "other"])
    expected = expected_tokens(merged(tmp_path / "merged", base, adapter), PROMPT, 12)
    assert expected != expected_tokens(base, PROMPT, 12)
    async with engine_with(base, {"mine": adapter}) as engine:
        assert await ask(engine, "mine") == expected


async def test_adapters_and_the_bare_model_share_a_batch(llama: dict[str, Path]) -> None:
    prompts = [PROMPT[first:] for first in range(4)]
    names = {"": "base", "all": "all merged", "few": "few merged"}
    async with engine_with(llama["base"], {"all": llama["all"], "few": llama["few"]}) as engine:
        jobs = [(name, prompt) for prompt in prompts for name in names]
        answers = await asyncio.gather(*(ask(engine, name, prompt) for name, prompt in jobs))
    for (name, prompt), answer in zip(jobs, answers, strict=True):
        assert answer == expected_tokens(llama[names[name]], prompt, 12), name


async def test_the_prefix_cache_keeps_adapters_apart(llama: dict[str, Path]) -> None:
    async with engine_with(llama["base"], {"all": llama["all"]}) as engine:
        for name, folder in (("", "base"), ("all", "all merged"), ("", "base"), ("all", "all merged")):
            assert await ask(engine, name) == expected_tokens(llama[folder], PROMPT, 12)
        assert engine.get_metrics()["prefix_hit_ratio"] > 0.3


async def test_answers_of_one_request_all_have_its_adapter(llama: dict[str, Path]) -> None:
    """Forks: n answers begin as copies of one sequence, and at temperature 0 all are the merged model's."""
    expected = expected_tokens(llama["all merged"], PROMPT, 12)
    sampling = GREEDY.model_copy(update={"n": 3, "temperature": 1e-6, "seed": 1})
    async with engine_with(llama["base"], {"all": llama["all"]}) as engine:
        request = Request(request_id="n", prompt=PROMPT, sampling_params=sampling, adapter="all")
        response = await engine.complete(request)
    assert [choice.output_tokens for choice in response.choices] == [expected] * 3


async def test_an_adapter_that_is_not_there_is_refused_by_name(llama: dict[str, Path]) -> None:
    async with engine_with(llama["base"], {"all": llama["all"]}) as engine:
        with pytest.raises(EngineError, match=r"no adapter 'other'.*all"):
            await ask(engine, "other")


def _no_change(folder: Path) -> None:
    """Leaves the folder as it is."""


def _break_tensors(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"torn")


def _lose_half(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[max(tensors)]
    save_file(tensors, folder / "adapter_model.safetensors")


def _add_head(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    head = {"base_model.model.lm_head.lora_A.weight": torch.zeros(RANK, 32)}
    save_file(load_file(folder / "adapter_model.safetensors") | head, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("changes", "damage", "error", "says"),
    [
        ({"peft_type": "IA3"}, _no_change, EngineError, "'IA3'.*LORA"),
        ({"use_dora": True}, _no_change, EngineError, "use_dora"),
        ({"bias": "all"}, _no_change, EngineError, "bias=all"),
        ({"modules_to_save": ["lm_head"]}, _no_change, EngineError, "modules_to_save"),
        ({"r": 65}, _no_change, EngineError, "rank 65.*max_lora_rank is 64"),
        ({"r": "4"}, _no_change, ModelLoadError, "adapter_config.json"),
        ({"r": 8}, _no_change, ModelLoadError, "shape"),
        ({}, _break_tensors, ModelLoadError, "adapter_model.safetensors"),
        ({}, _lose_half, ModelLoadError, "lora_B"),
        ({}, _add_head, ModelLoadError, "does not fit"),
    ],
)
async def test_adapters_that_cannot_be_served_are_refused(
    changes: dict[str, Any],
    damage: Callable[[Path], None],
    error: type[Exception],
    says: str,
    tmp_path: Path,
) -> None:
    base = tiny_model("llama")
    adapter = write_adapter(tmp_path / "bad", base, **changes)
    damage(adapter)
    with pytest.raises(error, match=says):
        async with engine_with(base, {"bad": adapter}):
            pass


async def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "wide", tiny_model("llama", hidden_size=64))
    with pytest.raises(ModelLoadError, match="shape"):
        async with engine_with(tiny_model("llama"), {"wide": adapter}):
            pass


async def test_models_that_run_through_transformers_have_no_adapters(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "any", tiny_model("llama"))
    with pytest.raises(EngineError, match="own family"):
        async with engine_with(tiny_model("olmo2"), {"any": adapter}):
            pass


async def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, why in (("empty", "adapter_config.json is missing"), ("nowhere", "no such folder")):
        with pytest.raises(ModelLoadError, match=f"There is no adapter 'none' in .*{folder}") as caught:
            async with engine_with(tiny_model("llama"), {"none": tmp_path / folder}):
                pass
        assert caught.value.cause == why
        assert "--lora NAME=FOLDER" in caught.value.hint


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "quantization": "int8"}], ids=str)
async def test_adapters_go_beside_weights_of_smaller_types(changes: dict[str, Any], llama: dict[str, Path]) -> None:
    """Nearer to the merged model in float32 than to the bare one, by log-probabilities of a prompt's tokens."""

    async def scores(folder: str, adapter: str, **settings: Any) -> list[float]:
        adapters = {"all": llama["all"]} if adapter else {}
        async with engine_with(llama[folder], adapters, **settings) as engine:
            sampling = SamplingParams(max_tokens=1, prompt_logprobs=1)
            request = Request(request_id="p", prompt=PROMPT, sampling_params=sampling, adapter=adapter)
            answer = await engine.complete(request)
        assert answer.prompt_logprobs is not None
        return [token.logprob for token in answer.prompt_logprobs]

    small = await scores("base", "all", **changes)
    right, wrong = await scores("all merged", ""), await scores("base", "")
    off = sum(abs(a - b) for a, b in zip(small, right, strict=True))
    assert off < 0.1 * sum(abs(a - b) for a, b in zip(right, wrong, strict=True))

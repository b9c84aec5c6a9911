"""Engines of several rank processes: the tokens of one process, errors that leave them alive, nothing left behind.

SPEC E5. Every rank is a real process that imports torch, so engines are shared where a test leaves them as they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.processes import children_of
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig, ModelLoadError
from sagellm_core.engine_core.plan import BatchType, NewSequence, SchedulerOutput, StepOutput
from sagellm_core.executor.multi_process import MultiProcessExecutor
from sagellm_protocol import DecodingStrategy, ErrorCode, SamplingParams

pytestmark = [pytest.mark.slow, pytest.mark.spec("E5")]
PROMPTS = [[(7 * row * at + at) % 300 + 5 for at in range(10 + 25 * row)] for row in range(4)]

SEARCH = SamplingParams(strategy=DecodingStrategy.BEAM_SEARCH, num_beams=3, n=3, max_tokens=10, ignore_eos=True)


def config(folder: Path, **changes: object) -> LLMEngineConfig:
    settings = {"max_model_len": 256, "dtype": "float32", "backend_type": "cpu", **changes}
    return LLMEngineConfig.model_validate({"model_path": str(folder), **settings})


def children() -> set[int]:
    """Rank processes that live now."""
    return {child.pid for child in children_of("sagellm_core.executor.rank")}


async def one_process(folder: Path, params: SamplingParams) -> list[list[int]]:
    engine = LLMEngine(config(folder))
    await engine.start()
    try:
        return [choice.output_tokens for choice in (await engine.generate(PROMPTS[2], sampling_params=params)).choices]
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("tensor", "pipeline"),
    [(2, 1), (1, 2), pytest.param(2, 2, marks=pytest.mark.exhaustive)],
    ids=["TP2", "PP2", "2x2"],
)
async def test_ranks_give_the_tokens_of_one_process_and_leave_nothing(tensor: int, pipeline: int) -> None:
    folder = tiny_model("llama")
    before = children()
    engine = LLMEngine(
        config(
            folder,
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
            max_num_batched_tokens=32,
            kv_cache_num_blocks=18,
        )
    )
    await engine.start()
    try:
        assert len(children() - before) == tensor * pipeline
        params = SamplingParams(max_tokens=24, ignore_eos=True)
        answers = await asyncio.gather(*(engine.generate(prompt, sampling_params=params) for prompt in PROMPTS))
        seeded = SamplingParams(max_tokens=8, temperature=1.0, seed=3, logprobs=2)
        drawn = [await engine.generate(PROMPTS[1], sampling_params=seeded) for _ in range(2)]
        searched = await engine.generate(PROMPTS[2], sampling_params=SEARCH)
        info = engine.get_info()["backend"]
        metrics = drawn[0].metrics
    finally:
        await engine.stop()
    assert [answer.output_tokens for answer in answers] == [expected_tokens(folder, each, 24) for each in PROMPTS]
    assert drawn[0].output_tokens == drawn[1].output_tokens
    assert [choice.output_tokens for choice in searched.choices] == await one_process(folder, SEARCH)
    assert metrics.comm_overhead_ms > 0
    assert (metrics.allreduce_count > 0, metrics.allgather_count > 0) == (tensor > 1, tensor > 1)
    assert drawn[0].logprobs is not None
    assert (info["tensor_parallel_size"], info["pipeline_parallel_size"]) == (tensor, pipeline)
    assert children() == before


def plan(step: int, tokens: list[int], *, slot: int = 0) -> SchedulerOutput:
    """A step that reads one sequence's prompt and samples."""
    count, name = len(tokens), f"s{step}"
    return SchedulerOutput(
        step,
        BatchType.PREFILL,
        [name],
        tokens,
        list(range(count)),
        list(range(slot, slot + count)),
        [count],
        [count],
        [[slot // 16, slot // 16 + 1]],
        [True],
        new=[NewSequence(name, tokens, SamplingParams())],
    )


@pytest.fixture(scope="module")
def pair() -> Iterator[MultiProcessExecutor]:
    """Two tensor-parallel ranks."""
    folder = tiny_model("llama")
    executor = MultiProcessExecutor(config(folder, tensor_parallel_size=2, kv_cache_num_blocks=16), folder, 256)
    executor.start()
    yield executor
    executor.stop()


def token_of(output: StepOutput) -> int:
    (sampled,) = output.tokens.values()
    return sampled[0].token_id


@pytest.mark.parametrize(
    "fault", [{"positions": [100_000]}, {"seq_ids": ["nobody"]}], ids=["on every rank", "on one rank"]
)
def test_a_step_that_fails_leaves_the_ranks_in_step(pair: MultiProcessExecutor, fault: dict[str, Any]) -> None:
    prompt = PROMPTS[0]
    good = token_of(pair.execute(plan(1, prompt)))
    with pytest.raises(EngineError) as caught:  # no such position: all raise; an unknown sequence: who samples raises
        pair.execute(replace(plan(2, [5]), **fault))
    assert caught.value.error_code is not ErrorCode.DISTRIBUTED_RUNTIME_ERROR
    assert token_of(pair.execute(plan(3, prompt))) == good == expected_tokens(tiny_model("llama"), prompt, 1)[0]


def test_blocks_leave_the_caches_of_all_ranks_and_come_back_elsewhere(pair: MultiProcessExecutor) -> None:
    prompt = PROMPTS[1][:20]
    pair.execute(plan(4, prompt))
    content = pair.read_blocks([0, 1])
    assert len(content) == 2 * pair.info.block_bytes
    assert any(content)
    pair.write_blocks([4, 3], content)
    assert pair.read_blocks([4, 3]) == content
    assert pair.read_blocks([3]) == content[pair.info.block_bytes :] != content[: pair.info.block_bytes]
    with pytest.raises(ValueError, match="blocks have"):
        pair.write_blocks([1], content)


def test_ranks_sleep_and_wake_together(pair: MultiProcessExecutor) -> None:
    pair.sleep()
    pair.wake()
    assert token_of(pair.execute(plan(6, PROMPTS[0]))) == expected_tokens(tiny_model("llama"), PROMPTS[0], 1)[0]


def test_collectives_are_counted(pair: MultiProcessExecutor) -> None:
    before = pair.comm
    pair.execute(plan(5, PROMPTS[0]))
    layers = 2
    assert pair.comm.all_reduces - before.all_reduces >= 2 * layers
    assert pair.comm.all_gathers - before.all_gathers >= 1
    assert pair.comm.seconds > before.seconds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor_parallel_size": 3}, "cannot be shared by 3 ranks"),
        pytest.param({"pipeline_parallel_size": 4}, "cannot fill 4 stages", marks=pytest.mark.exhaustive),
        ({"tensor_parallel_size": 2, "comm_type": "pigeon"}, "known: auto, gloo"),
        ({"tensor_parallel_size": 2, "device": "cuda:1"}, "device_ids"),
        ({"tensor_parallel_size": 2, "device_ids": [0]}, "as many device_ids"),
    ],
)
async def test_what_cannot_be_split_is_refused(changes: dict[str, object], message: str) -> None:
    before = children()
    with pytest.raises(EngineError, match=message) as caught:
        await LLMEngine(config(tiny_model("llama"), **changes)).start()
    assert caught.value.error_code is ErrorCode.INVALID_ARGUMENT
    assert children() == before


@pytest.mark.parametrize(("device_ids", "times"), [([0, 1], 1), ([], 0)])
async def test_device_ids_of_processors_are_warned_of_once(
    device_ids: list[int], times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranks are numbered whether or not anybody asked for devices: only who asked is told."""
    engine = LLMEngine(config(tiny_model("llama"), tensor_parallel_size=2, device_ids=device_ids))
    await engine.start()
    await engine.stop()
    assert sum("device_ids" in record.getMessage() for record in caplog.records) == times


async def test_a_device_that_is_not_there_is_told_by_the_ranks() -> None:
    before = children()
    with pytest.raises(EngineError, match="no device 'npu' here"):
        await LLMEngine(config(tiny_model("llama"), tensor_parallel_size=2, device="npu")).start()
    assert children() == before


async def test_a_torn_folder_is_told_as_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    folder.mkdir()
    for file in tiny_model("llama").iterdir():
        data = file.read_bytes()
        (folder / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    before = children()
    with pytest.raises(ModelLoadError, match="Cannot read the weights"):
        await LLMEngine(config(folder, tensor_parallel_size=2)).start()
    assert children() == before


@pytest.mark.exhaustive
def test_one_rank_is_an_executor_like_any_other() -> None:
    folder = tiny_model("llama")
    executor = MultiProcessExecutor(config(folder), folder, 256)
    info = executor.start()
    try:
        assert info.num_blocks > 0
        assert token_of(executor.execute(plan(1, PROMPTS[0]))) == expected_tokens(folder, PROMPTS[0], 1)[0]
    finally:
        executor.stop()
        executor.stop()

"""Prefill and decode on nodes of their own: the tokens of one process, blocks that travel, back-pressure, other hosts.

SPEC E6. Nodes are real processes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
import pytest
from tests.helpers.lora import write_adapter
from tests.helpers.processes import children_of
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig, ModelLoadError
from sagellm_core.factory import new_engine
from sagellm_core.nodes.node import TOKEN_VARIABLE
from sagellm_core.nodes.state import Role
from sagellm_core.runtime import DistributedRuntime, PDLayout, RemoteNode
from sagellm_protocol import ErrorCode, Request, SamplingParams

pytestmark = [pytest.mark.slow, pytest.mark.spec("E6")]
PROMPTS = [[(7 * row * at + at) % 300 + 5 for at in range(20 + 35 * row)] for row in range(5)]
WAYS: list[dict[str, Any]] = [
    {"n": 2, "temperature": 1.0, "seed": 5, "logprobs": 1},
    {"strategy": "beam_search", "num_beams": 3, "n": 2},
    {"strategy": "contrastive", "top_k": 4},
    {"strategy": "speculative", "n_speculative_tokens": 3},
    {"temperature": 1.0, "seed": 4, "repetition_penalty": 1.2, "min_p": 0.05},
    {"prompt_logprobs": 1},
    {"grammar": {"kind": "regex", "text": "[ab]{4}"}, "ignore_eos": False},
]
GREEDY = SamplingParams(max_tokens=16, ignore_eos=True)


@asynccontextmanager
async def running(layout: PDLayout, **changes: Any) -> AsyncIterator[DistributedRuntime]:
    settings = {"model_path": str(tiny_model("llama")), "max_model_len": 256, "dtype": "float32", **changes}
    runtime = DistributedRuntime(LLMEngineConfig.model_validate({"backend_type": "cpu", **settings}), layout)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


def nodes() -> set[int]:
    """Node processes that live now."""
    return {child.pid for child in children_of("sagellm_core.nodes.node")}


def expected() -> list[list[int]]:
    return [expected_tokens(tiny_model("llama"), prompt, 16) for prompt in PROMPTS]


async def answers(runtime: DistributedRuntime) -> list[list[int]]:
    responses = await asyncio.gather(*(runtime.generate(prompt, sampling_params=GREEDY) for prompt in PROMPTS))
    return [response.output_tokens for response in responses]


@pytest.mark.parametrize("transport", ["shm", pytest.param("tcp", marks=pytest.mark.exhaustive)])
async def test_the_tokens_are_those_of_one_process_and_blocks_travel(transport: Literal["shm", "tcp"]) -> None:
    before = nodes()
    layout = PDLayout(transport=transport, prefill_threshold_tokens=32)
    async with running(layout, max_num_batched_tokens=32) as runtime:
        assert await runtime.health_check()
        assert await answers(runtime) == expected()
        metrics = runtime.get_metrics()
        whole_blocks = sum((len(prompt) - 1) // 16 for prompt in PROMPTS if len(prompt) >= 32)
        assert metrics["kv_transfer_blocks"] == whole_blocks
        assert metrics["kv_transfer_bytes"] == whole_blocks * 16 * runtime.stats.bytes_per_token
        assert metrics["kv_transfer_count"] == 4
        again = await runtime.generate(PROMPTS[4], sampling_params=GREEDY)
        assert again.output_tokens == expected()[4]
        assert again.metrics.kv_transfer_count == 0, "the decode node has these blocks already"
        assert again.metrics.prefix_hit_rate > 0.8
        fresh = [*PROMPTS[3][::-1], 9]
        travelled = await runtime.generate(fresh, sampling_params=GREEDY)
        assert travelled.output_tokens == expected_tokens(tiny_model("llama"), fresh, 16)
        assert travelled.metrics.kv_transfer_count == (len(fresh) - 1) // 16
        assert travelled.metrics.kv_transfer_ms > 0
        assert travelled.metrics.prefix_hit_rate == 0
        await every_way_to_decode_is_that_of_one_process(runtime)
        assert {node["role"] for node in runtime.get_info()["nodes"].values()} == {"prefill", "decode"}
    assert nodes() == before


async def every_way_to_decode_is_that_of_one_process(runtime: DistributedRuntime) -> None:
    plain = runtime.config.model_copy(update={"engine_id": "alone"})
    alone = LLMEngine(plain)
    await alone.start()
    try:
        for fields in WAYS:
            params = SamplingParams.model_validate({"max_tokens": 6, "ignore_eos": True, **fields})
            here, there = [await each.generate(PROMPTS[2], sampling_params=params) for each in (alone, runtime)]
            assert here.output_tokens == there.output_tokens, fields
            assert [each.output_tokens for each in here.choices] == [each.output_tokens for each in there.choices]
            assert len(here.prompt_logprobs or []) == len(there.prompt_logprobs or [])
        vectors = [await each.embed(["a text whose vector is wanted"]) for each in (alone, runtime)]
        assert vectors[0][0] == pytest.approx(vectors[1][0], abs=1e-5)
    finally:
        await alone.stop()


async def test_a_client_that_leaves_and_a_deadline_end_a_request_on_its_node() -> None:
    async with running(PDLayout(prefill_nodes=0, hybrid_nodes=1, decode_nodes=0)) as runtime:
        events = runtime.stream(PROMPTS[1], sampling_params=SamplingParams(max_tokens=150, ignore_eos=True))
        assert [(await anext(events)).event for _ in range(3)] == ["start", "delta", "delta"]
        await events.aclose()
        late = await runtime.execute(Request(prompt=PROMPTS[3], deadline_ms=1))
        assert late.error is not None
        assert late.error.code is ErrorCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(20):
            while runtime.get_metrics()["kv_cache_usage_ratio"] or runtime.executor.router.flights:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        with pytest.raises(EngineError, match="cannot sleep"):
            await runtime.sleep()


async def test_a_small_decode_cache_holds_the_prefill_back_until_there_is_room() -> None:
    layout = PDLayout(prefill_threshold_tokens=32)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    prompts = [[(13 * row + 3 * at) % 300 + 5 for at in range(100)] for row in range(8)]
    async with running(layout, kv_cache_num_blocks=20, max_batch_size=4) as runtime:
        responses = await asyncio.gather(*(runtime.generate(prompt, sampling_params=params) for prompt in prompts))
        assert runtime.get_metrics()["kv_transfer_count"] >= 4
        async with asyncio.timeout(10):
            while runtime.get_metrics()["kv_cache_usage_ratio"]:  # noqa: ASYNC110 - nodes report now and then
                await asyncio.sleep(0.05)
    wanted = [expected_tokens(tiny_model("llama"), prompt, 40) for prompt in prompts]
    assert [response.output_tokens for response in responses] == wanted


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "layout",
    [
        PDLayout(prefill_nodes=0, decode_nodes=0, hybrid_nodes=2, prefill_threshold_tokens=32),
        PDLayout(prefill_nodes=2, decode_nodes=2, prefill_threshold_tokens=32),
        PDLayout(prefill_nodes=0, decode_nodes=1),
    ],
    ids=["two hybrids", "two and two", "decode alone"],
)
async def test_other_layouts_give_the_same_tokens(layout: PDLayout) -> None:
    async with running(layout) as runtime:
        assert await answers(runtime) == expected()


@pytest.mark.exhaustive
async def test_nodes_of_several_ranks_exchange_blocks() -> None:
    layout = PDLayout(prefill_threshold_tokens=32)
    async with running(layout, tensor_parallel_size=2) as runtime:
        assert await answers(runtime) == expected()
        assert runtime.get_metrics()["kv_transfer_count"] == 4


@pytest.mark.exhaustive
async def test_blocks_of_an_adapter_are_not_those_of_the_model(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_model("llama"))
    requests = [Request(prompt=PROMPTS[4], adapter=name, sampling_params=GREEDY) for name in ("", "x", "", "x")]
    config = LLMEngineConfig(
        model_path=str(tiny_model("llama")),
        lora_adapters={"x": str(adapter)},
        max_model_len=256,
        dtype="float32",
        backend_type="cpu",
    )
    given: list[list[list[int]]] = []
    moved: list[int] = []
    for engine in (LLMEngine(config), DistributedRuntime(config, PDLayout(prefill_threshold_tokens=32))):
        await engine.start()
        try:
            answers = [await engine.complete(request) for request in requests]
        finally:
            await engine.stop()
        given.append([answer.output_tokens for answer in answers])
        moved = [answer.metrics.kv_transfer_count for answer in answers]
    assert given[0] == given[1]
    assert given[0][0] != given[0][1]
    blocks = (len(PROMPTS[4]) - 1) // 16
    assert moved == [blocks, blocks, 0, 0]


@pytest.fixture
def remote_node() -> Iterator[str]:
    """A node as it would run on another host; its address."""
    environment = {**os.environ, TOKEN_VARIABLE: "open sesame"}
    argv = [sys.executable, "-m", "sagellm_core.nodes.node", "--listen", "127.0.0.1:0"]
    node = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
    assert node.stdout is not None
    with node.stdout:
        yield node.stdout.readline().removeprefix("listening on ").strip()
        node.kill()
        node.wait()


@pytest.mark.exhaustive
async def test_a_node_on_another_host_takes_part(remote_node: str) -> None:
    remote = [RemoteNode(role=Role.DECODE, address=remote_node)]
    layout = PDLayout(decode_nodes=0, remote=remote, token="open sesame", transport="tcp", prefill_threshold_tokens=32)
    for _ in range(2):  # the node outlives a runtime
        async with running(layout) as runtime:
            assert await answers(runtime) == expected()
            assert runtime.get_metrics()["kv_transfer_count"] == 4
    with pytest.raises(EngineError, match="token"):
        async with running(layout.model_copy(update={"token": "wrong"})):
            pass


async def test_a_runtime_that_cannot_start_says_why_and_leaves_nothing() -> None:
    before = nodes()
    with pytest.raises(ModelLoadError, match="nowhere"):
        async with running(PDLayout(), model_path="/nowhere/at/all"):
            pass
    with pytest.raises(EngineError, match="backend"):
        async with running(PDLayout(prefill_nodes=0), backend_type="cuda"):
            pass
    with pytest.raises(ValueError, match="has to decode"):
        PDLayout(decode_nodes=0)
    assert nodes() == before


@pytest.mark.exhaustive
def test_the_server_runs_on_nodes(free_port: Callable[[], int], until: Callable[..., None]) -> None:
    port = free_port()
    argv = [
        str(Path(sys.executable).with_name("sage-engine")),
        "--port",
        str(port),
        "--model",
        str(tiny_model("llama")),
    ]
    server = subprocess.Popen([*argv, "--prefill-nodes", "1", "--decode-nodes", "1", "--max-model-len", "256"])
    try:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/health").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, within=60)
        body = {"prompt": PROMPTS[4], "max_tokens": 8, "ignore_eos": True, "logprobs": 0}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
        assert answer["usage"]["completion_tokens"] == 8
        assert len(psutil.Process(server.pid).children()) == 2
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_an_engine_of_one_process_does_not_pretend_to_be_several() -> None:
    several = LLMEngineConfig(model_path=str(tiny_model("llama")), prefill_nodes=1, decode_nodes=2)
    runtime = new_engine(several)
    assert isinstance(runtime, DistributedRuntime)
    assert [spec.name for spec in runtime.layout.specs()] == ["prefill-0", "decode-0", "decode-1"]
    with pytest.raises(EngineError, match="DistributedRuntime"):
        asyncio.run(LLMEngine(several).start())
    with pytest.raises(ValueError, match="nodes that decode"):
        LLMEngineConfig(model_path="x", prefill_nodes=1)

"""Adapters and sleep on several ranks: an adapter in shards and in stages, ranks that sleep together (SPEC E5, E7)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.lora import merged, write_adapter
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import SamplingParams

pytestmark = [pytest.mark.slow, pytest.mark.spec("E5")]
PROMPT = [(11 * at * at + at) % 300 + 5 for at in range(40)]


@pytest.mark.parametrize(
    "split",
    [
        {"tensor_parallel_size": 2},
        pytest.param({"pipeline_parallel_size": 2}, marks=pytest.mark.exhaustive),
        pytest.param({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, marks=pytest.mark.exhaustive),
    ],
    ids=["TP2", "PP2", "2x2"],
)
async def test_ranks_share_adapters_and_sleep_together(split: dict[str, int], tmp_path: Path) -> None:
    base = tiny_model("llama")
    adapter = write_adapter(tmp_path / "adapter", base)
    folders = {"": base, "mine": merged(tmp_path / "merged", base, adapter)}
    settings = {"dtype": "float32", "backend_type": "cpu", "max_model_len": 128, "kv_cache_num_blocks": 32}
    engine = LLMEngine(
        LLMEngineConfig.model_validate(
            {"model_path": str(base), "lora_adapters": {"mine": str(adapter)}, **settings, **split}
        )
    )
    await engine.start()
    try:
        greedy = SamplingParams(max_tokens=10, ignore_eos=True, temperature=0.0)
        for turn in range(2):
            for name, folder in folders.items():
                request = Request(request_id=f"{turn}{name}", prompt=PROMPT, sampling_params=greedy, adapter=name)
                answer = await engine.complete(request)
                assert answer.output_tokens == expected_tokens(folder, PROMPT, 10), (turn, name)
            await engine.sleep()
            await engine.wake()
    finally:
        await engine.stop()

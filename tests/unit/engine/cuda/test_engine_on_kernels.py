"""The whole engine on the GPU kernels, interpreted, end to end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.tiny_models import expected_tokens, tiny_model

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig
from sagellm_core.backends import base
from sagellm_protocol import ErrorCode, Request, Response, SamplingParams

pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
from tests.helpers.interpreted import InterpretedBackend

pytestmark = [pytest.mark.spec("E5", "E7"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend "interpreted" is there."""
    monkeypatch.setitem(base._OURS, "interpreted", "tests.helpers.interpreted:InterpretedBackend")
    base.backend_names.cache_clear()
    yield
    base.backend_names.cache_clear()


def run(folder: Path, prompts: list[list[int]], params: SamplingParams, **config: Any) -> list[Response]:
    """All prompts at once through an engine."""

    async def answers() -> list[Response]:
        settings = {"max_batch_size": 4, "max_model_len": 96, "dtype": "float32", "kv_cache_block_size": 4}
        values = {"backend_type": "interpreted", **settings, **config}
        engine = LLMEngine(LLMEngineConfig(model_path=str(folder), **values))
        await engine.start()
        try:
            requests = [
                Request(request_id=f"r{index}", model="m", prompt=prompt, sampling_params=params)
                for index, prompt in enumerate(prompts)
            ]
            return list(await asyncio.gather(*(engine.execute(request) for request in requests)))
        finally:
            await engine.stop()

    return asyncio.run(answers())


def prompts_of(*lengths: int) -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(5, 300) for _ in range(length)] for length in lengths]


def test_greedy_tokens_are_those_of_transformers() -> None:
    """Sequences of uneven lengths that come and go: prompts in chunks, then recorded steps of three rows, two, one."""
    folder = tiny_model("llama")
    prompts = prompts_of(3, 30, 11)
    params = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
    found = run(folder, prompts, params, max_num_batched_tokens=16)
    assert [each.output_tokens for each in found] == [expected_tokens(folder, prompt, 5) for prompt in prompts]
    assert sum(InterpretedBackend.replays.values()) >= 4


def test_a_quantization_of_another_device_is_refused() -> None:
    with pytest.raises(EngineError, match="fp8 needs a Hopper GPU") as caught:
        run(tiny_model("llama"), [], SamplingParams(), quantization="fp8")
    assert caught.value.error_code is ErrorCode.NOT_IMPLEMENTED

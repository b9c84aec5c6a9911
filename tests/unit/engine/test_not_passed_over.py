"""What a configuration asks for and this engine cannot do is refused where it starts, not passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagellm_core import DistributedRuntime, LLMEngine, LLMEngineConfig, PDLayout
from sagellm_core.errors import EngineError
from sagellm_protocol import ErrorCode


async def test_a_transport_that_there_is_not_is_refused_by_one_process_too(tiny_llama: Path) -> None:
    config = LLMEngineConfig(model_path=str(tiny_llama), backend_type="cpu", comm_type="pigeon")
    with pytest.raises(EngineError, match="no comm_type 'pigeon'; known: auto, gloo") as caught:
        await LLMEngine(config).start()
    assert caught.value.error_code is ErrorCode.INVALID_ARGUMENT
    assert caught.value.param == "comm_type"


async def test_nodes_without_a_prefix_cache_are_refused_before_one_starts(tiny_llama: Path) -> None:
    config = LLMEngineConfig(model_path=str(tiny_llama), backend_type="cpu", enable_prefix_cache=False)
    runtime = DistributedRuntime(config, PDLayout())
    with pytest.raises(EngineError, match="it cannot be off") as caught:
        await runtime.start()
    assert caught.value.error_code is ErrorCode.INVALID_ARGUMENT
    assert caught.value.param == "enable_prefix_cache"
    assert not await runtime.health_check()
    await runtime.stop()

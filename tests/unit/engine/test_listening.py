"""News of a request told where they arise, without a task: the same as a stream's (SPEC E1, G6)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_core.request_state import News
from sagellm_protocol import Request, SamplingParams, StreamEvent

pytestmark = pytest.mark.spec("E1", "G6")


async def started(folder: Path) -> LLMEngine:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder)))
    await engine.start()
    return engine


def is_end(news: News) -> bool:
    return isinstance(news, StreamEvent) and news.event == "end"


async def test_who_listens_hears_what_a_stream_gives(tiny_llama: Path) -> None:
    engine = await started(tiny_llama)
    params = SamplingParams(n=2, temperature=1.0, seed=5, max_tokens=6, ignore_eos=True, logprobs=1)
    request = Request(request_id="heard", prompt="The quick", sampling_params=params)
    heard: list[News] = []
    over = asyncio.Event()

    def hear(news: list[News]) -> None:
        heard.extend(news)
        if is_end(news[-1]):
            over.set()

    try:
        await engine.listen(request, hear)
        async with asyncio.timeout(30):
            await over.wait()
        events = [event async for event in engine.stream(request)]
    finally:
        await engine.stop()
    assert isinstance(heard[0], StreamEvent)
    assert heard[0].event == "start"
    said = [(each.index, each.chunk, each.chunk_tokens, each.logprobs) for each in heard]
    assert said == [(event.index, event.chunk, event.chunk_tokens, event.logprobs) for event in events]
    assert isinstance(heard[-1], StreamEvent)
    assert heard[-1].choices == events[-1].choices


async def test_a_listener_that_leaves_or_fails_disturbs_nobody(
    tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await started(tiny_llama)
    params = SamplingParams(max_tokens=200, ignore_eos=True)
    heard: list[News] = []

    def fails(news: list[News]) -> None:
        if not isinstance(news[-1], StreamEvent):
            raise RuntimeError("a listener's fault")

    try:
        leave = await engine.listen(Request(prompt="The quick", sampling_params=params), heard.extend)
        await engine.listen(Request(prompt="brown fox", sampling_params=params), fails)
        leave()
        leave()
        assert len((await engine.generate("jumps", max_tokens=5)).output_tokens) <= 5
        async with asyncio.timeout(30):
            while engine.stats.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await engine.stop()
    assert len(heard) < 100
    assert "a listener's fault" in caplog.text

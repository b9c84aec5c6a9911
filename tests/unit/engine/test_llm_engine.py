"""`LLMEngine` as a user sees it: generate, stream, execute, cancel, limits, failures (SPEC E1, E4)."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from sagellm_core import EngineError, EngineFactory, LLMEngine, LLMEngineConfig, ModelLoadError
from sagellm_core.engine_core import Scheduler
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.executor.base import WorkerInfo
from sagellm_core.executor.in_process import InProcessExecutor
from sagellm_core.text import Tokenizer
from sagellm_protocol import ErrorCode, Message, Request, SamplingParams

pytestmark = pytest.mark.spec("E1", "E4")
Expected = Callable[..., list[int]]
ENDLESS = SamplingParams(max_tokens=200, ignore_eos=True)


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[LLMEngine]:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), **changes))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def idle(engine: LLMEngine) -> None:
    """Wait until the step thread has nothing left."""
    async with asyncio.timeout(20):
        while engine.get_metrics()["requests_running"] or engine.get_metrics()["kv_cache_usage_ratio"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_generate_from_text_and_from_token_ids_agree(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        from_text = await engine.generate("The quick brown", max_tokens=12)
        ids = Tokenizer(tiny_llama).encode("The quick brown")
        from_ids = await engine.generate(ids, max_tokens=12, request_id="mine")
    assert from_text.output_tokens == from_ids.output_tokens
    assert from_text.output_text == from_ids.output_text
    assert from_ids.request_id == "mine"
    assert from_ids.prompt_tokens == len(ids)
    assert from_ids.finish_reason in ("stop", "length")


async def test_a_stream_is_start_deltas_end_and_adds_up(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        whole = await engine.generate("Emoji 😀", max_tokens=40)
        events = [event async for event in engine.stream("Emoji 😀", max_tokens=40, request_id="r")]
    assert [event.event for event in events] == ["start", *["delta"] * (len(events) - 2), "end"]
    start, end = events[0], events[-1]
    assert start.prompt_tokens == end.prompt_tokens > 0
    assert start.engine_id == "engine-0"
    deltas = events[1:-1]
    assert "".join(event.chunk for event in deltas) == end.output_text == whole.output_text
    assert [token for event in deltas for token in event.chunk_tokens] == end.output_tokens == whole.output_tokens
    assert deltas[0].content == deltas[0].chunk
    assert {event.request_id for event in events} == {"r"}


async def test_metrics_tell_first_token_from_the_whole(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        response = await engine.generate("x" * 50, sampling_params=ENDLESS)
    metrics = response.metrics
    total_ms = 1000 * (metrics.timestamps.completed_at - metrics.timestamps.queued_at)
    assert 0 < metrics.ttft_ms < total_ms / 2
    assert len(metrics.itl_list) == len(response.output_tokens) - 1
    assert metrics.ttft_ms + sum(metrics.itl_list) == pytest.approx(total_ms, rel=0.01)
    assert metrics.throughput_tps == pytest.approx(1000 * len(response.output_tokens) / total_ms, rel=0.01)
    assert metrics.timestamps.queued_at <= metrics.timestamps.scheduled_at <= metrics.timestamps.executed_at


async def test_many_at_once_answer_as_each_alone(tiny_llama: Path) -> None:
    prompts = [f"prompt number {index} " * (1 + index % 5) for index in range(24)]
    async with running(tiny_llama, max_batch_size=8, kv_cache_num_blocks=40) as engine:
        together = await asyncio.gather(*(engine.generate(prompt, max_tokens=20) for prompt in prompts))
        alone = [await engine.generate(prompt, max_tokens=20) for prompt in prompts[:6]]
        await engine.generate(prompts[4], max_tokens=2)
        await engine.generate(prompts[4], max_tokens=2)
        await idle(engine)
        assert engine.get_metrics()["prefix_hit_ratio"] > 0
    assert [each.output_tokens for each in together[:6]] == [each.output_tokens for each in alone]


async def test_a_seed_is_reproducible_beside_others(tiny_llama: Path) -> None:
    seeded = SamplingParams(temperature=1.5, seed=11, max_tokens=20, ignore_eos=True)
    noise = SamplingParams(temperature=2.0, max_tokens=20, ignore_eos=True)
    async with running(tiny_llama) as engine:
        alone = await engine.generate("seed", sampling_params=seeded)
        first, *_ = await asyncio.gather(
            engine.generate("seed", sampling_params=seeded),
            *(engine.generate(f"other {index}", sampling_params=noise) for index in range(5)),
        )
    assert first.output_tokens == alone.output_tokens


async def test_execute_takes_messages_and_reports_errors_in_the_response(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        good = await engine.execute(
            Request(messages=[Message(role="user", content="Hi")], max_tokens=5, trace_id="trace")
        )
        bad = await engine.execute(Request(prompt=[1, 999_999]))
    assert good.error is None
    assert (good.trace_id, good.prompt_tokens) == ("trace", 5)
    assert bad.finish_reason == "error"
    assert bad.error is not None
    assert bad.error.code is ErrorCode.INVALID_ARGUMENT
    assert "outside the vocabulary" in bad.error.message


async def test_stop_strings_and_stop_tokens_end_an_answer(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        free = await engine.generate("The quick", sampling_params=ENDLESS)
        middle = free.output_text[len(free.output_text) // 2 :][:3]
        cut = await engine.generate("The quick", sampling_params=ENDLESS.model_copy(update={"stop": [middle]}))
        token = free.output_tokens[10]
        stopped = await engine.generate(
            "The quick", sampling_params=ENDLESS.model_copy(update={"stop_token_ids": [token]})
        )
        await idle(engine)
    assert cut.finish_reason == "stop"
    assert cut.output_text == free.output_text[: free.output_text.index(middle)]
    assert stopped.finish_reason == "stop"
    assert stopped.output_tokens == free.output_tokens[: free.output_tokens.index(token) + 1]


async def test_logprobs_come_with_their_texts(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        response = await engine.generate("a", sampling_params=SamplingParams(max_tokens=3, logprobs=2, ignore_eos=True))
    assert response.logprobs is not None
    assert [each.token_id for each in response.logprobs] == response.output_tokens
    assert all(each.logprob == max(each.top.values()) <= 0 for each in response.logprobs)
    assert all(set(each.top) == set(each.top_tokens) for each in response.logprobs)


async def test_leaving_a_stream_cancels_the_request(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        stream = engine.stream("endless", sampling_params=ENDLESS)
        async for event in stream:
            if event.event == "delta":
                break
        await stream.aclose()
        await idle(engine)
        assert engine.get_metrics()["generation_tokens_total"] < 200


async def test_an_id_can_be_used_again_at_once(tiny_llama: Path) -> None:
    """Who cancels and asks again with the same id hears nothing of the request before."""
    async with running(tiny_llama) as engine:
        sampling = SamplingParams(max_tokens=12, ignore_eos=True)
        expected = (await engine.generate([9] * 5, sampling_params=sampling)).output_tokens
        several = ENDLESS.model_copy(update={"n": 3})
        for round_ in range(20):
            stream = engine.stream([5 + round_] * 20, sampling_params=several, request_id="same")
            for _ in range(1 + round_ % 4):
                await anext(stream)
            await stream.aclose()
            again = await engine.generate([9] * 5, sampling_params=sampling, request_id="same")
            assert again.output_tokens == expected
            assert again.finish_reason == "length"
        await idle(engine)


async def test_cancel_ends_a_stream_with_what_there_was(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        events = []
        async for event in engine.stream("endless", sampling_params=ENDLESS, request_id="r"):
            events.append(event)
            if len(events) == 5:
                assert engine.cancel("r")
        assert events[-1].finish_reason == "cancelled"
        assert 4 <= len(events[-1].output_tokens) < 200
        assert not engine.cancel("r")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty"),
        ("long " * 200, "context is 256 tokens"),
        ([0, -3], "outside the vocabulary"),
        ("half \ud83d of a pair", "not Unicode"),
    ],
)
async def test_what_cannot_run_is_refused_before_the_first_event(
    prompt: str | list[int], reason: str, tiny_llama: Path
) -> None:
    async with running(tiny_llama) as engine:
        with pytest.raises(EngineError, match=reason) as caught:
            await engine.generate(prompt)
        assert caught.value.error_code is ErrorCode.INVALID_ARGUMENT
        assert caught.value.param == "prompt"
        with pytest.raises(EngineError, match=reason):
            await anext(engine.stream(prompt))


@pytest.mark.parametrize(
    "source",
    [
        {"prompt": "long " * 100_000},
        {"messages": [Message(role="user", content=[{"type": "text", "text": "long " * 100_000}])]},
        {"messages": [Message(role="user")] * 50_000},
    ],
    ids=["prompt", "part", "messages"],
)
async def test_a_huge_prompt_is_refused_beside_other_work(source: dict[str, Any], tiny_llama: Path) -> None:
    """Encoding holds neither the event loop nor the GIL, and stops where it is clear that the prompt cannot fit."""
    async with running(tiny_llama) as engine:
        refusal = asyncio.create_task(engine.execute(Request(**source)))
        turns = 0
        while not refusal.done():
            turns += 1
            await asyncio.sleep(0)
        response = await refusal
    assert turns > 20
    assert response.error is not None
    assert response.error.code is ErrorCode.INVALID_ARGUMENT
    assert "more than 512 tokens, but the model's context is 256 tokens" in response.error.message


async def test_a_full_queue_refuses_and_recovers(tiny_llama: Path) -> None:
    async with running(tiny_llama, max_batch_size=1, max_waiting_requests=1) as engine:
        streams = [engine.stream("busy", sampling_params=ENDLESS) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(EngineError, match="full") as caught:
            await engine.generate("one more")
        assert caught.value.error_code is ErrorCode.RESOURCE_EXHAUSTED
        assert caught.value.retryable
        for stream in streams:
            await stream.aclose()
        assert (await engine.generate("again", max_tokens=2)).output_tokens


async def test_budget_deadline_and_identity_of_a_request(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        prompt = list(range(5, 15))
        bounded = await engine.execute(Request(prompt=prompt, kv_budget_tokens=14, sampling_params=ENDLESS))
        assert len(bounded.output_tokens) == 4
        late = await engine.execute(Request(prompt=prompt, deadline_ms=1, sampling_params=ENDLESS))
        assert late.error is not None
        assert late.error.code is ErrorCode.DEADLINE_EXCEEDED
        stream = engine.stream(prompt, sampling_params=ENDLESS, request_id="same")
        await anext(stream)
        with pytest.raises(EngineError, match="already running"):
            await engine.generate(prompt, request_id="same")
        await stream.aclose()


async def test_a_failing_step_fails_its_requests_and_the_engine_lives(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = InProcessExecutor.execute
    faults = ["out of memory"]

    def once(self: InProcessExecutor, plan: SchedulerOutput) -> StepOutput:
        if faults:
            raise RuntimeError(faults.pop())
        return execute(self, plan)

    monkeypatch.setattr(InProcessExecutor, "execute", once)
    async with running(tiny_llama) as engine:
        with pytest.raises(EngineError, match="out of memory") as caught:
            await engine.generate("x")
        assert caught.value.error_code is ErrorCode.RESOURCE_EXHAUSTED
        assert await engine.health_check()
        assert (await engine.generate("x", max_tokens=2)).output_tokens
        await idle(engine)


async def test_steps_that_keep_failing_make_the_engine_load_anew(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to restart it: after three failures the executor is made again, and what waits goes on with it."""
    execute, start = InProcessExecutor.execute, InProcessExecutor.start
    starts: list[InProcessExecutor] = []

    def first_one_broken(self: InProcessExecutor, plan: SchedulerOutput) -> StepOutput:
        if self is starts[0]:
            raise RuntimeError("the device is gone")
        return execute(self, plan)

    def counted(self: InProcessExecutor) -> WorkerInfo:
        starts.append(self)
        return start(self)

    monkeypatch.setattr(InProcessExecutor, "execute", first_one_broken)
    monkeypatch.setattr(InProcessExecutor, "start", counted)
    async with running(tiny_llama) as engine:
        for _ in range(3):
            with pytest.raises(EngineError, match="the device is gone") as caught:
                await engine.generate("x")
            assert caught.value.error_code is ErrorCode.INTERNAL
        async with asyncio.timeout(60):
            while not await engine.health_check():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await engine.generate("x", max_tokens=2)).output_tokens
        assert engine.get_metrics()["restarts_total"] == 1
    assert len(starts) == 2


async def test_stop_ends_what_runs_and_start_works_again(tiny_llama: Path) -> None:
    engine = LLMEngine(LLMEngineConfig(model_path=str(tiny_llama)))
    with pytest.raises(EngineError, match="not running"):
        await engine.generate("x")
    await engine.start()
    await engine.start()
    stream = engine.stream("endless", sampling_params=ENDLESS)
    await anext(stream)
    await engine.stop()
    last = [event async for event in stream][-1]
    assert last.error is not None
    assert last.error.code is ErrorCode.UNAVAILABLE
    assert not await engine.health_check()
    await engine.stop()
    await engine.start()
    assert (await engine.generate("x", max_tokens=2)).output_tokens
    await engine.stop()


async def test_two_who_start_an_engine_start_one(tiny_llama: Path) -> None:
    async with running(tiny_llama) as other:
        threads = threading.active_count()
        engine = LLMEngine(other.config)
        await asyncio.gather(engine.start(), engine.start())
        assert [thread.name for thread in threading.enumerate()].count("sage-engine-steps") == 2
        assert (await engine.generate("x", max_tokens=2)).output_tokens
        await engine.stop()
        assert threading.active_count() <= threads + 2  # those of `to_thread` stay


async def test_nobody_waits_for_an_engine_that_stopped(tiny_llama: Path) -> None:
    """Stop right after submitting, cancelling and encoding: every stream still ends."""
    engine = LLMEngine(LLMEngineConfig(model_path=str(tiny_llama)))
    await engine.start()
    submitted, cancelled = engine.stream("a", sampling_params=ENDLESS), engine.stream("b", request_id="b")
    await anext(submitted)
    await anext(cancelled)
    engine.cancel("b")
    encoding = asyncio.create_task(engine.generate("long " * 2000 * 5))
    await asyncio.sleep(0)
    await engine.stop()
    async with asyncio.timeout(10):
        assert [event async for event in submitted][-1].finish_reason in ("error", "length")
        assert [event async for event in cancelled][-1].finish_reason in ("cancelled", "error", "length", "stop")
        with pytest.raises(EngineError):
            await encoding


async def test_a_fault_of_the_loop_itself_ends_every_request(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tiny_llama) as engine:
        stream = engine.stream("a", sampling_params=ENDLESS)
        await anext(stream)
        monkeypatch.setattr(Scheduler, "schedule", lambda self: 1 / 0)
        async with asyncio.timeout(10):
            last = [event async for event in stream][-1]
        assert last.error is not None
        assert last.error.code is ErrorCode.UNAVAILABLE
        assert not await engine.health_check()


async def test_the_event_loop_is_free_while_the_model_computes(tiny_llama: Path) -> None:
    async with running(tiny_llama, max_batch_size=8) as engine:
        work = [asyncio.create_task(engine.generate(f"w{i}", sampling_params=ENDLESS)) for i in range(8)]
        checks = 0
        while not all(task.done() for task in work):
            assert await engine.health_check()
            checks += 1
            await asyncio.sleep(0)
        await asyncio.gather(*work)
    assert checks > 100


@pytest.mark.slow
async def test_random_load_with_random_cancels_leaves_nothing_behind(tiny_llama: Path) -> None:
    """A starved cache, more requests than fit, half of them left at a random moment."""
    draw = random.Random(5)
    answers: list[str | None] = []

    async def request(engine: LLMEngine, index: int) -> None:
        patience = draw.choice([1000, draw.randint(0, 30)])
        params = SamplingParams(max_tokens=draw.randint(1, 60), temperature=draw.choice([0.0, 1.0]), ignore_eos=True)
        prompt = [draw.randrange(5, 300) for _ in range(draw.randint(1, 60))]
        seen = 0
        stream = engine.stream(prompt, sampling_params=params, request_id=str(index))
        try:
            async for event in stream:
                seen += 1
                if event.event == "end":
                    answers.append(event.finish_reason)
                    assert len(event.output_tokens) == params.max_tokens
                elif seen > patience:
                    answers.append(None)
                    break
        finally:
            await stream.aclose()

    async with running(
        tiny_llama, max_batch_size=6, kv_cache_num_blocks=20, kv_cache_block_size=8, max_num_batched_tokens=24
    ) as engine:
        async with asyncio.TaskGroup() as group:
            for index in range(60):
                group.create_task(request(engine, index))
                await asyncio.sleep(0)
        await idle(engine)
        metrics = engine.get_metrics()
    assert len(answers) == 60
    assert set(answers) == {None, "length"}
    assert metrics["preemptions_total"] > 0
    assert metrics["requests_waiting"] == 0
    assert metrics["step_failures_total"] == 0


async def test_a_model_without_a_template_stops_where_the_user_would_speak(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_llama, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text("{}")
    async with running(folder) as engine:
        stream = engine.stream(Request(messages=[Message(role="user", content="Hi")], max_tokens=2))
        await anext(stream)
        assert [state.params.stop for state in engine._requests.values()] == [["\nUser:"]]
        await stream.aclose()


async def test_info_and_metrics(tiny_llama: Path) -> None:
    async with running(tiny_llama, kv_cache_num_blocks=32) as engine:
        await engine.generate("hello", sampling_params=ENDLESS, max_tokens=4)
        await idle(engine)
        info, metrics = engine.get_info(), engine.get_metrics()
    assert info["state"] == "ready"
    assert info["kv_cache"] == {"blocks": 32, "block_size": 16}
    assert info["backend"] == {"kind": "cpu", "device": "cpu"}
    assert info["max_model_len"] == 256
    assert metrics["generation_tokens_total"] == 4
    assert metrics["requests_waiting"] == 0


async def test_a_model_that_is_not_there_is_said_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="No model") as caught:
        await LLMEngine(LLMEngineConfig(model_path=str(tmp_path / "none"))).start()
    assert "sage-builtin" in caught.value.hint


async def test_a_model_that_does_not_load_can_be_mended(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_llama, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:5000])
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder)))
    with pytest.raises(ModelLoadError, match="torn"):
        await engine.start()
    assert not await engine.health_check()
    (folder / "model.safetensors").write_bytes(whole)
    await engine.start()
    assert (await engine.generate("x", max_tokens=2)).output_tokens
    await engine.stop()


async def test_a_model_of_nan_fails_the_request_and_not_the_engine(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = copytree(tiny_llama, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    async with running(folder) as engine:
        with pytest.raises(EngineError, match="NaN") as caught:
            await engine.generate("x")
        assert caught.value.error_code is ErrorCode.INTERNAL
        await idle(engine)
        assert await engine.health_check()


def test_the_factory_makes_engines_by_backend() -> None:
    factory = EngineFactory()
    assert factory.create("cpu").config.backend_type == "cpu"
    assert {"cpu", "cuda"} <= set(factory.kinds())
    with pytest.raises(EngineError, match=r"known: .*cpu, cuda"):
        factory.create("abacus")

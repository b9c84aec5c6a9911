"""Requests with several answers, searches, vectors and drafts through a whole engine (SPEC E1, E3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sagellm_core import EngineError, LLMEngine, LLMEngineConfig
from sagellm_protocol import DecodingStrategy, ErrorCode, Request, Response, SamplingParams

pytestmark = pytest.mark.spec("E1", "E3")
PROMPT = [5, 17, 42, 100, 7, 9, 33, 12, 250, 3]
SAMPLED = SamplingParams(temperature=1.5, seed=7, max_tokens=12, ignore_eos=True)


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[LLMEngine]:
    engine = LLMEngine(LLMEngineConfig(model_path=str(folder), dtype="float32", **changes))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def with_(params: SamplingParams, **changes: Any) -> SamplingParams:
    return SamplingParams(**(params.model_dump(exclude_unset=True) | changes))


async def ask(engine: LLMEngine, params: SamplingParams, prompt: list[int] = PROMPT) -> Response:
    return await engine.generate(prompt, sampling_params=params)


def outputs(response: Response) -> list[list[int]]:
    return [choice.output_tokens for choice in response.choices]


@pytest.mark.parametrize("prefix", [True, False])
async def test_answers_differ_are_reproducible_and_the_first_is_that_of_a_single_request(
    prefix: bool, tiny_llama: Path
) -> None:
    async with running(tiny_llama, enable_prefix_cache=prefix) as engine:
        alone = await ask(engine, SAMPLED)
        several = await ask(engine, with_(SAMPLED, n=4))
        crowd = await asyncio.gather(ask(engine, with_(SAMPLED, n=4)), *(ask(engine, SAMPLED, [n]) for n in range(4)))
    async with running(tiny_llama, max_batch_size=1, kv_cache_num_blocks=4) as narrow:
        one_by_one = await ask(narrow, with_(SAMPLED, n=4))
    assert len({tuple(tokens) for tokens in outputs(several)}) == 4
    assert several.output_tokens == outputs(several)[0] == alone.output_tokens
    assert outputs(crowd[0]) == outputs(several) == outputs(one_by_one)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert alone.choices == []


async def test_the_best_of_several_are_those_with_the_largest_mean_logprob(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        every = await ask(engine, with_(SAMPLED, n=5, logprobs=0))
        best = await ask(engine, with_(SAMPLED, n=2, best_of=5))
    means = {
        tuple(choice.output_tokens): sum(each.logprob for each in choice.logprobs or ()) / len(choice.output_tokens)
        for choice in every.choices
    }
    ranked = sorted(means, key=lambda tokens: -means[tokens])
    assert [tuple(tokens) for tokens in outputs(best)] == ranked[:2]
    assert [choice.score for choice in best.choices] == pytest.approx([means[tokens] for tokens in ranked[:2]])
    assert best.logprobs is None
    assert best.output_tokens == outputs(best)[0]


async def test_a_stream_of_several_answers_says_which_goes_on(tiny_llama: Path) -> None:
    drawn = SamplingParams(max_tokens=10, temperature=1.0, seed=3)
    beams = SamplingParams(max_tokens=10, strategy=DecodingStrategy.BEAM_SEARCH, num_beams=3, n=2)
    for params in (with_(drawn, n=3), with_(drawn, n=2, best_of=4), beams):
        async with running(tiny_llama) as engine:
            whole = await ask(engine, params)
            events = [event async for event in engine.stream(PROMPT, sampling_params=params)]
        texts = {choice.index: "" for choice in whole.choices}
        tokens: dict[int, list[int]] = {choice.index: [] for choice in whole.choices}
        for event in events[1:-1]:
            texts[event.index] += event.chunk
            tokens[event.index] += event.chunk_tokens
        assert [tokens[index] for index in sorted(tokens)] == outputs(whole)
        assert [texts[index] for index in sorted(texts)] == [choice.output_text for choice in whole.choices]
        assert [choice.output_tokens for choice in events[-1].choices] == outputs(whole)


async def test_a_stop_string_ends_one_answer_of_several(tiny_llama: Path) -> None:
    async with running(tiny_llama) as engine:
        free = await ask(engine, with_(SAMPLED, n=3, max_tokens=30))
        text = free.choices[1].output_text
        stop = text[len(text) // 2 :][:2]
        cut = await ask(engine, with_(SAMPLED, n=3, max_tokens=30, stop=[stop]))
    for whole, part in zip(free.choices, cut.choices, strict=True):
        assert part.output_text == whole.output_text.split(stop)[0]
        assert part.finish_reason == ("stop" if stop in whole.output_text else "length")


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
async def test_beam_search_is_that_of_transformers(penalty: float, early: bool, tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    beams = SamplingParams(strategy=DecodingStrategy.BEAM_SEARCH, num_beams=4, n=3, max_tokens=16,
                           length_penalty=penalty, early_stopping=early)  # fmt: skip
    async with running(tiny_llama, max_batch_size=8) as engine:
        together = await asyncio.gather(
            ask(engine, beams), ask(engine, with_(SAMPLED, max_tokens=30)), ask(engine, beams, PROMPT[::-1])
        )
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    for prompt, ours in ((PROMPT, together[0]), (PROMPT[::-1], together[2])):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            num_beams=4,
            num_return_sequences=3,
            do_sample=False,
            length_penalty=penalty,
            early_stopping=early,
            eos_token_id=1,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        wanted = [[int(token) for token in row[len(prompt) :]] for row in theirs.sequences]
        wanted = [row[: row.index(1) + 1] if 1 in row else row for row in wanted]
        assert outputs(ours) == wanted
        assert [choice.score for choice in ours.choices] == pytest.approx(theirs.sequences_scores.tolist(), abs=1e-4)


async def test_searches_survive_a_starved_cache(tiny_llama: Path) -> None:
    beams = SamplingParams(strategy=DecodingStrategy.BEAM_SEARCH, num_beams=3, max_tokens=30, ignore_eos=True)
    contrastive = SamplingParams(strategy=DecodingStrategy.CONTRASTIVE, top_k=4, max_tokens=30, ignore_eos=True)
    work = [(beams, PROMPT), (contrastive, PROMPT), (beams, PROMPT[::-1]), (contrastive, PROMPT[::-1])]
    work += [(with_(SAMPLED, max_tokens=30), [number, *PROMPT[1:]]) for number in range(6)]
    async with running(tiny_llama) as roomy:
        alone = [await ask(roomy, params, prompt) for params, prompt in work]
    async with running(tiny_llama, kv_cache_block_size=4, kv_cache_num_blocks=34, max_batch_size=12) as starved:
        together = await asyncio.gather(*(ask(starved, params, prompt) for params, prompt in work))
        assert starved.get_metrics()["preemptions_total"] > 0
    assert [each.output_tokens for each in together] == [each.output_tokens for each in alone]


async def test_prompt_logprobs_are_the_models(tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        wanted = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    async with running(tiny_llama, max_num_batched_tokens=4, max_batch_size=4) as engine:
        for _ in range(2):
            response = await ask(engine, SamplingParams(max_tokens=2, prompt_logprobs=2))
            assert response.prompt_logprobs is not None
            assert [each.token_id for each in response.prompt_logprobs] == PROMPT[1:]
            for row, each in enumerate(response.prompt_logprobs):
                assert each.logprob == pytest.approx(float(wanted[row, each.token_id]), abs=1e-4)
                assert max(each.top.values()) == pytest.approx(float(wanted[row].max()), abs=1e-4)
        events = [event async for event in engine.stream(PROMPT, sampling_params=SamplingParams(prompt_logprobs=0))]
    assert [event.prompt_logprobs is not None for event in events[1:-1]] == [True] + [False] * (len(events) - 3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_embedding_is_the_pooled_hidden_state(pooling: str, tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModel

    texts = [PROMPT, PROMPT[:3], PROMPT * 4]
    model = AutoModel.from_pretrained(tiny_llama, dtype=torch.float32)
    async with running(tiny_llama, pooling_strategy=pooling, max_num_batched_tokens=8, max_batch_size=4) as engine:
        vectors = await engine.embed(texts)
        again, generated = await asyncio.gather(engine.embed(texts), engine.generate(PROMPT, max_tokens=3))
        with pytest.raises(EngineError, match="empty"):
            await engine.embed(["", "x"])
    assert generated.output_tokens
    for text, vector, same in zip(texts, vectors, again, strict=True):
        with torch.inference_mode():
            hidden = model(torch.tensor([text])).last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        assert vector == pytest.approx((pooled / pooled.norm()).tolist(), abs=1e-4)
        assert vector == pytest.approx(same, abs=1e-5)


async def test_more_texts_than_the_queue_holds_are_embedded(tiny_llama: Path) -> None:
    async with running(tiny_llama, max_batch_size=2, max_waiting_requests=1) as engine:
        vectors = await engine.embed([[number, 5] for number in range(12)])
    assert len({tuple(vector) for vector in vectors}) == 12


async def test_an_embedding_engine_gives_no_text(tiny_llama: Path) -> None:
    async with running(tiny_llama, task_type="embed") as engine:
        assert len((await engine.embed(["hello"]))[0]) == 32
        with pytest.raises(EngineError, match="it gives vectors"):
            await engine.generate("x")


async def test_looked_up_drafts_change_nothing_and_save_steps(tiny_llama: Path) -> None:
    """A greedy answer of a random model soon repeats itself, which is what lookup is good at."""
    greedy = SamplingParams(max_tokens=100, ignore_eos=True)
    async with running(tiny_llama) as engine:
        plain = await ask(engine, greedy)
        before = engine.get_metrics()["steps_total"]
        drafted, sampled, beside = await asyncio.gather(
            ask(engine, with_(greedy, n_speculative_tokens=5)),
            ask(engine, with_(SAMPLED, n_speculative_tokens=3)),
            ask(engine, SAMPLED),
        )
        metrics = engine.get_metrics()
    assert drafted.output_tokens == plain.output_tokens
    assert sampled.output_tokens == beside.output_tokens
    assert drafted.metrics.spec_accept_rate > 0
    assert metrics["spec_accept_rate"] > 0
    assert metrics["steps_total"] - before < 100


async def test_cancelling_ends_all_answers(llama_folder: Any) -> None:
    """The answers would take seconds: they are not through when a busy machine comes back to this test."""
    folder = llama_folder(max_position_embeddings=4096)
    endless = SamplingParams(max_tokens=4000, ignore_eos=True)
    searches: list[dict[str, Any]] = [
        {"n": 3},
        {"strategy": DecodingStrategy.BEAM_SEARCH, "num_beams": 3},
        {"strategy": DecodingStrategy.CONTRASTIVE, "top_k": 3},
    ]
    for changes in searches:
        async with running(folder) as engine:
            params = with_(endless, **changes)
            stream = engine.stream(PROMPT, sampling_params=params, request_id="r")
            await anext(stream)
            await asyncio.sleep(0.02)
            assert engine.cancel("r")
            last = [event async for event in stream][-1]
            assert last.finish_reason == "cancelled"
            async with asyncio.timeout(20):
                while engine.get_metrics()["kv_cache_usage_ratio"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)


async def test_what_cannot_be_searched_is_refused(tiny_llama: Path) -> None:
    async with running(tiny_llama, max_batch_size=2) as engine:
        with pytest.raises(EngineError, match="needs 4 sequences at once, but a batch has 2") as caught:
            await ask(engine, SamplingParams(strategy=DecodingStrategy.BEAM_SEARCH, num_beams=4))
        assert caught.value.error_code is ErrorCode.INVALID_ARGUMENT
        with pytest.raises(EngineError, match="no adapter 'x'; this engine has: none"):
            await engine.complete(Request(prompt="x", adapter="x"))


async def test_another_model_is_loaded_while_requests_are_answered(tiny_llama: Path, llama_folder: Any) -> None:
    other = llama_folder(num_hidden_layers=3)
    greedy = SamplingParams(max_tokens=60, ignore_eos=True)
    async with running(tiny_llama) as engine:
        first = await ask(engine, greedy)
        under_way = asyncio.create_task(ask(engine, greedy))
        await asyncio.sleep(0.02)
        await engine.reload(str(other))
        assert (await under_way).output_tokens == first.output_tokens
        second = await ask(engine, greedy)
        with pytest.raises(EngineError, match="nowhere"):
            await engine.reload("/nowhere")
        assert (await ask(engine, greedy)).output_tokens == second.output_tokens
        assert engine.get_info()["model_path"] == str(other)
    async with running(other) as engine:
        assert (await ask(engine, greedy)).output_tokens == second.output_tokens
    assert second.output_tokens != first.output_tokens

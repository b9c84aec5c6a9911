"""Dynamic batching: what queued while a batch ran makes the next one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from sage.common.components.sage_embedding import BaseEmbedding
from sage.llm.embedding.batcher import DynamicBatcher, QueueFull


class Lengths(BaseEmbedding):
    """Embeds a text as its length; a gate holds the worker; "bad" raises."""

    method_name = "lengths"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.batches: list[list[str]] = []

    def get_dim(self) -> int:
        return 1

    def count_tokens(self, text: str) -> int:
        return 1

    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.started.set()
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
def embedder() -> Lengths:
    return Lengths()


@pytest.fixture
async def batcher(embedder: Lengths) -> AsyncIterator[DynamicBatcher]:
    batcher = DynamicBatcher(embedder, max_batch_texts=8, max_queued_texts=40)
    await batcher.start()
    yield batcher
    embedder.gate.set()
    await batcher.stop()


async def hold(batcher: DynamicBatcher, embedder: Lengths) -> "asyncio.Task[object]":
    """Start a request and return once the worker is busy with it."""
    embedder.gate.clear()
    embedder.started.clear()
    task = asyncio.create_task(_submit(batcher, ["first"]))
    assert await asyncio.to_thread(embedder.started.wait, 10)
    return task


async def _submit(batcher: DynamicBatcher, texts: list[str]) -> object:
    vectors, tokens = await batcher.submit(texts)
    return vectors[:, 0].tolist(), tokens


async def test_what_queues_while_a_batch_runs_is_one_batch(batcher: DynamicBatcher, embedder: Lengths) -> None:
    first = await hold(batcher, embedder)
    others = [asyncio.create_task(_submit(batcher, ["x" * n])) for n in range(1, 6)]
    await asyncio.sleep(0)
    assert batcher.queued_texts == 5
    embedder.gate.set()
    assert await first == ([5.0], 1)
    assert await asyncio.gather(*others) == [([float(n)], 1) for n in range(1, 6)]
    assert [len(batch) for batch in embedder.batches] == [1, 5]


async def test_a_long_request_takes_turns_with_short_ones(batcher: DynamicBatcher, embedder: Lengths) -> None:
    first = await hold(batcher, embedder)
    long = asyncio.create_task(_submit(batcher, ["y"] * 20))
    short = asyncio.create_task(_submit(batcher, ["zz"]))
    await asyncio.sleep(0)
    embedder.gate.set()
    assert await long == ([1.0] * 20, 20)
    assert await short == ([2.0], 1)
    await first
    assert [len(batch) for batch in embedder.batches] == [1, 8, 8, 5]
    assert "zz" in embedder.batches[2], "the short one did not wait for the end of the long one"


async def test_the_token_budget_holds_and_one_text_always_fits(embedder: Lengths) -> None:
    batcher = DynamicBatcher(embedder, max_batch_tokens=100)
    await batcher.start()
    vectors, _ = await batcher.submit(["a" * 2000, "b" * 200, "c" * 160, "d" * 20])
    await batcher.stop()
    assert vectors[:, 0].tolist() == [2000, 200, 160, 20]
    assert [len(batch) for batch in embedder.batches] == [1, 2, 1]


async def test_one_bad_text_fails_its_own_request_only(batcher: DynamicBatcher, embedder: Lengths) -> None:
    first = await hold(batcher, embedder)
    good = asyncio.create_task(_submit(batcher, ["good"]))
    bad = asyncio.create_task(_submit(batcher, ["bad"]))
    await asyncio.sleep(0)
    embedder.gate.set()
    assert await good == ([4.0], 1)
    with pytest.raises(ValueError, match="bad text"):
        await bad
    await first
    assert await _submit(batcher, ["after"]) == ([5.0], 1)


async def test_a_full_queue_refuses_and_cancelled_requests_leave_it(batcher: DynamicBatcher, embedder: Lengths) -> None:
    first = await hold(batcher, embedder)
    waiting = asyncio.create_task(_submit(batcher, ["w"] * 35))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as full:
        await batcher.submit(["v"] * 6)
    assert full.value.retry_after >= 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert batcher.queued_texts == 0
    accepted = asyncio.create_task(_submit(batcher, ["v"] * 6))
    await asyncio.sleep(0)
    embedder.gate.set()
    assert await accepted == ([1.0] * 6, 6)
    await first
    assert all("w" not in batch for batch in embedder.batches)


async def test_nothing_to_embed_is_an_empty_answer(batcher: DynamicBatcher) -> None:
    vectors, tokens = await asyncio.wait_for(batcher.submit([]), 5)
    assert (vectors.shape, tokens) == ((0, 1), 0)

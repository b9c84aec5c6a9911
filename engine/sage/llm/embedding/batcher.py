"""Dynamic batching: while one batch is computed, requests queue; the next batch takes what queued.

There is no fixed wait: an idle server starts a lone text at once, a busy one fills its batches by itself. The batcher
knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.common.logs import get_logger

_log = get_logger("sage.llm.embedding.batcher")

Vectors = NDArray[np.float32]


class QueueFull(Exception):  # noqa: N818 - named like queue.Full
    """More texts wait than the server accepts; `retry_after` says in how many seconds to try again."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many texts wait")
        self.retry_after = retry_after


@dataclass(slots=True)
class _Job:
    """The texts of one request and what is known of them so far."""

    texts: Sequence[str]
    vectors: Vectors
    done: asyncio.Future[None]
    taken: int = 0
    finished: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Slice:
    """A run of texts of one job inside a batch."""

    job: _Job
    start: int
    stop: int


@dataclass(slots=True)
class DynamicBatcher:
    """Feeds one embedder from many requests.

    A batch holds at most `max_batch_texts` texts of about `max_batch_tokens` tokens in all (one text always fits). Long
    jobs take turns with short ones. `on_batch(texts, seconds)` is called after each batch.
    """

    embedder: BaseEmbedding
    max_batch_tokens: int = 16384
    max_batch_texts: int = 256
    max_queued_texts: int = 16384
    on_batch: Callable[[int, float], None] | None = None
    _jobs: deque[_Job] = field(default_factory=deque)
    _queued: int = 0
    _rate: float = 1000.0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _pool: ThreadPoolExecutor | None = None

    @property
    def queued_texts(self) -> int:
        """Return how many texts wait for a batch."""
        return self._queued

    async def start(self) -> None:
        """Start the batching loop and its one worker thread."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; jobs that still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for job in self._jobs:
            job.done.cancel()
        self._jobs.clear()

    async def submit(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Return (vectors of shape (len(texts), dim), tokens read).

        Raises QueueFull when too many texts wait, and what the embedder raises. Cancelling the call drops the texts
        that no batch has taken yet.
        """
        if self._queued and self._queued + len(texts) > self.max_queued_texts:
            raise QueueFull(max(1.0, self._queued / self._rate))
        vectors = np.zeros((len(texts), self.embedder.get_dim()), dtype=np.float32)
        if not texts:
            return vectors, 0
        job = _Job(texts, vectors, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._queued += len(texts)
        self._wake.set()
        try:
            await job.done
        except asyncio.CancelledError:
            self._forget(job)
            raise
        return job.vectors, job.tokens

    def _forget(self, job: _Job) -> None:
        """Drop a job that nobody waits for."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._queued -= len(job.texts) - job.taken

    async def _run(self) -> None:
        """Compute batches for as long as there is work."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
            batch = self._take()
            started = loop.time()
            await self._compute(batch)
            self._measure(sum(part.stop - part.start for part in batch), loop.time() - started)

    def _measure(self, texts: int, seconds: float) -> None:
        """Follow the rate at which the queue drains."""
        if seconds > 0:
            self._rate = 0.8 * self._rate + 0.2 * texts / seconds
        if self.on_batch is not None:
            self.on_batch(texts, seconds)

    def _take(self) -> list[_Slice]:
        """Take the next batch: a share of each waiting job, in turn, within the budget."""
        batch: list[_Slice] = []
        texts = tokens = 0
        for _ in range(len(self._jobs)):
            if texts >= self.max_batch_texts or tokens >= self.max_batch_tokens:
                break
            job = self._jobs.popleft()
            start = stop = job.taken
            while stop < len(job.texts) and texts < self.max_batch_texts:
                cost = len(job.texts[stop]) // 4 + 2
                if texts and tokens + cost > self.max_batch_tokens:
                    tokens = self.max_batch_tokens
                    break
                stop, texts, tokens = stop + 1, texts + 1, tokens + cost
            job.taken = stop
            self._queued -= stop - start
            if stop < len(job.texts):
                self._jobs.append(job)
            if stop > start:
                batch.append(_Slice(job, start, stop))
        return batch

    async def _compute(self, batch: list[_Slice]) -> None:
        """Compute a batch in the worker thread; where it fails, each job alone, so that one cannot spoil the others."""
        batch = [part for part in batch if not part.job.done.done()]
        if not batch:
            return
        try:
            await self._embed(batch)
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0].job, error)
                return
            _log.warning("a batch failed, its requests are tried one by one", reason=repr(error))
            for part in batch:
                await self._compute([part])

    async def _embed(self, batch: list[_Slice]) -> None:
        """Run the embedder over a batch and hand the vectors to their jobs."""
        texts = [text for part in batch for text in part.job.texts[part.start : part.stop]]
        loop = asyncio.get_running_loop()
        vectors, counts = await loop.run_in_executor(self._pool, self.embedder.embed_counted, texts)
        at = 0
        for part in batch:
            size = part.stop - part.start
            part.job.vectors[part.start : part.stop] = vectors[at : at + size]
            part.job.tokens += sum(counts[at : at + size])
            part.job.finished += size
            at += size
            if part.job.finished == len(part.job.texts) and not part.job.done.done():
                part.job.done.set_result(None)

    def _fail(self, job: _Job, error: Exception) -> None:
        """Give a job its error and drop its other texts."""
        self._forget(job)
        if not job.done.done():
            job.done.set_exception(error)

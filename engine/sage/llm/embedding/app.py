"""The embedding server's routes over a `DynamicBatcher`."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from difflib import get_close_matches

from sage.common.components.sage_embedding.base import BaseEmbedding
from sage.llm.asgi import ApiError, CancelOnDisconnect
from sage.llm.embedding.batcher import DynamicBatcher, QueueFull
from sage.llm.embedding.metrics import EmbeddingMetrics
from sage.llm.embedding.payload import check_dimensions, decode, encode, texts_of
from sage.llm.http_app import HttpApp, Request, Route
from sage.llm.prometheus import CONTENT_TYPE

_INLINE_NUMBERS = 8192  # answers with more numbers are encoded off the event loop


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """What one request may hold, and how much may wait."""

    inputs: int = 2048
    body_bytes: int = 8 * 1024 * 1024
    queued_texts: int = 16384


def create_app(
    embedder: BaseEmbedding, model: str, *, aliases: tuple[str, ...] = (), limits: EmbeddingLimits | None = None
) -> HttpApp:
    """Return the ASGI application that serves `embedder` under the model name `model` and its aliases."""
    service = _Service(embedder, model, aliases, limits or EmbeddingLimits())
    return HttpApp(
        routes=[
            Route("/v1/embeddings", {"POST": service.embeddings}),
            Route("/v1/models", {"GET": service.models}),
            Route("/v1/models/", {"GET": service.model}),
            Route("/health", {"GET": service.health}),
            Route("/metrics", {"GET": service.metrics_page}),
        ],
        observe=service.metrics.request,
        start=service.batcher.start,
        stop=service.batcher.stop,
    )


class _Service:
    """One model with its batcher and its numbers."""

    def __init__(self, embedder: BaseEmbedding, model: str, aliases: tuple[str, ...], limits: EmbeddingLimits) -> None:
        self._embedder = embedder
        self._model = model
        self._names = (model, *aliases)
        self._limits = limits
        self._created = int(time.time())
        self.metrics = EmbeddingMetrics(lambda: self.batcher.queued_texts)
        self.batcher = DynamicBatcher(embedder, max_queued_texts=limits.queued_texts, on_batch=self.metrics.batch)

    async def embeddings(self, request: Request) -> None:
        """POST /v1/embeddings."""
        wanted = decode(await request.body(self._limits.body_bytes))
        self._check_model(wanted.model)
        check_dimensions(wanted, self._embedder.get_dim())
        texts = texts_of(wanted, self._limits.inputs)
        async with CancelOnDisconnect(request.receive):
            try:
                vectors, tokens = await self.batcher.submit(texts)
            except QueueFull as full:
                raise _busy(full) from full
            if vectors.size > _INLINE_NUMBERS:
                body = await asyncio.to_thread(encode, wanted, self._model, vectors, tokens)
            else:
                body = encode(wanted, self._model, vectors, tokens)
        await request.respond(200, body)

    async def models(self, request: Request) -> None:
        """GET /v1/models."""
        await request.respond_json(200, {"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> None:
        """GET /v1/models/{id}."""
        self._check_model(request.path.removeprefix("/v1/models/"))
        await request.respond_json(200, self._card())

    async def health(self, request: Request) -> None:
        """GET /health."""
        await request.respond_json(200, {"status": "ok", "model": self._model, "dimension": self._embedder.get_dim()})

    async def metrics_page(self, request: Request) -> None:
        """GET /metrics."""
        await request.respond(200, self.metrics.page(), [CONTENT_TYPE])

    def _card(self) -> dict[str, object]:
        """Return the model as OpenAI lists it."""
        return {"id": self._model, "object": "model", "created": self._created, "owned_by": "sage"}

    def _check_model(self, name: str | None) -> None:
        """Raise ApiError 404 for a model that is not served here."""
        if name is None or name in ("", "default") or name in self._names:
            return
        near = get_close_matches(name, self._names, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"Served here: {self._model!r}."
        raise ApiError(404, f"There is no model {name[:200]!r}. {hint}", param="model", code="model_not_found")


def _busy(full: QueueFull) -> ApiError:
    """Return the refusal while too many texts wait."""
    seconds = min(60, math.ceil(full.retry_after))
    return ApiError(
        429,
        f"Too many texts wait already. Try again in {seconds} s.",
        type="rate_limit_error",
        code="queue_full",
        headers=[(b"retry-after", str(seconds).encode())],
    )

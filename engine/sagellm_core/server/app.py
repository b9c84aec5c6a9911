"""The HTTP routes of one engine, as a Starlette application.

The engine has one model, so a request may name any ("gpt2", "default", nothing): it is answered by that one, and the
answer carries its id; the name of a LoRA adapter chooses that. Choosing among models by name, and refusing unknown
ones, is the gateway's part.

Starlette and not FastAPI: the bodies are checked by the same pydantic models either way, and FastAPI's dependency
injection and schema generation would only add to the start-up time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import EngineError
from sagellm_core.server.auth import KeyCheck
from sagellm_core.server.faults import on_fault, on_http_error, on_refusal
from sagellm_core.server.routes import AboutRoutes, ModelRoutes, RestRoutes, TextRoutes
from sagellm_core.server.service import EngineService


def create_app(
    config: LLMEngineConfig, service: EngineService | None = None, *, api_keys: Sequence[str] = ()
) -> Starlette:
    """The application; the model loads in the background when it starts, and `/health` says when it is there.

    With `api_keys`, all routes but `/`, `/health` and `/metrics` want one of them.
    """
    served = service or EngineService(config)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        served.start()
        try:
            yield
        finally:
            await served.stop()

    app = Starlette(
        routes=_routes(served),
        middleware=[Middleware(KeyCheck, keys=tuple(api_keys))] if api_keys else [],
        exception_handlers={EngineError: on_refusal(served.drain), HTTPException: on_http_error, Exception: on_fault},
        lifespan=lifespan,
    )
    app.state.service = served
    return app


def _routes(served: EngineService) -> list[Route]:
    about, text, model, rest = AboutRoutes(served), TextRoutes(served), ModelRoutes(served), RestRoutes(served)
    return [
        Route("/v1/completions", text.completions, methods=["POST"]),
        Route("/v1/chat/completions", text.chat_completions, methods=["POST"]),
        Route("/", about.index),
        Route("/health", about.health),
        Route("/info", about.info),
        Route("/version", about.version),
        Route("/metrics", about.metrics),
        Route("/v1/models", about.models),
        Route("/v1/models/{model:path}", about.model),
        Route("/v1/completions/stream", text.completions_stream, methods=["POST"]),
        Route("/v1/embeddings", model.embeddings, methods=["POST"]),
        Route("/tokenize", model.tokenize, methods=["POST"]),
        Route("/detokenize", model.detokenize, methods=["POST"]),
        Route("/sleep", rest.sleep, methods=["POST"]),
        Route("/wake_up", rest.wake, methods=["POST"]),
        Route("/is_sleeping", rest.is_sleeping),
    ]

"""The HTTP routes of one engine, as a Starlette application.

The engine has one model, so a request may name any ("gpt2", "default", nothing): it is answered by that one, and the
answer carries its id. Choosing among models by name, and refusing unknown ones, is the gateway's part.

Starlette and not FastAPI: the bodies are checked by the same pydantic models either way, and FastAPI's dependency
injection and schema generation would only add to the start-up time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sage.common import __version__
from sagellm_core.config import LLMEngineConfig
from sagellm_core.errors import EngineError, invalid
from sagellm_core.server.bodies import ChatBody, CompletionBody
from sagellm_core.server.metrics import CONTENT_TYPE
from sagellm_core.server.service import EngineService
from sagellm_core.server.shapes import Answer, engine_error, error_object
from sagellm_core.server.sse import EventStream, disconnected, encode

_BODY_LIMIT = 16 << 20
_CLOSED_BY_CLIENT = 499
_T = TypeVar("_T")


def create_app(config: LLMEngineConfig, service: EngineService | None = None) -> Starlette:
    """The application; the model loads in the background when it starts, and `/health` says when it is there."""
    served = service or EngineService(config)
    routes = Routes(served)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        served.start()
        try:
            yield
        finally:
            await served.stop()

    app = Starlette(
        routes=[
            Route("/", routes.index),
            Route("/health", routes.health),
            Route("/info", routes.info),
            Route("/metrics", routes.metrics),
            Route("/v1/models", routes.models),
            Route("/v1/models/{model:path}", routes.model),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/completions/stream", routes.completions_stream, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat_completions, methods=["POST"]),
        ],
        exception_handlers={EngineError: _on_engine_error, HTTPException: _on_http_error, Exception: _on_fault},
        lifespan=lifespan,
    )
    app.state.service = served
    return app


class Routes:
    """One method a route."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def index(self, _: Request) -> Response:
        return _json({"name": "sage-engine", "version": __version__, "model": self._service.model_id})

    async def health(self, _: Request) -> Response:
        status, body = await self._service.health()
        return _json(body, status)

    async def info(self, _: Request) -> Response:
        return _json({**self._service.engine.get_info(), "model": self._service.model_id, "version": __version__})

    async def metrics(self, _: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [self._model_object()]})

    async def model(self, request: Request) -> Response:
        wanted = request.path_params["model"]
        if wanted not in (self._service.model_id, "default"):
            message = f"no model {wanted!r} here; this engine serves {self._service.model_id}"
            return _json(error_object(404, message, param="model", code="model_not_found"), 404)
        return _json(self._model_object())

    async def completions(self, request: Request) -> Response:
        body = _checked(CompletionBody, await _read(request))
        return await self._answer(request, body)

    async def completions_stream(self, request: Request) -> Response:
        body = _checked(CompletionBody, await _read(request))
        return await self._answer(request, body.model_copy(update={"stream": True}))

    async def chat_completions(self, request: Request) -> Response:
        body = _checked(ChatBody, await _read(request))
        return await self._answer(request, body)

    async def _answer(self, request: Request, body: CompletionBody | ChatBody) -> Response:
        try:
            requests = body.requests()
        except ValidationError as error:
            raise _as_invalid(error) from error
        answer = Answer("chat.completion" if isinstance(body, ChatBody) else "text_completion", self._service.model_id)
        if body.stream:
            return await EventStream.open(self._service.merged(requests), answer, body.include_usage, body.n or 1)
        responses = await _unless_gone(request, self._service.answers(requests))
        if responses is None:
            return Response(status_code=_CLOSED_BY_CLIENT)
        return _json(answer.whole(responses, len(requests) // (body.n or 1)))

    def _model_object(self) -> dict[str, Any]:
        length = self._service.engine.get_info().get("max_model_len")
        return {
            "id": self._service.model_id,
            "object": "model",
            "created": 0,
            "owned_by": "sage",
            "max_model_len": length,
        }


async def _read(request: Request) -> dict[str, Any]:
    """The JSON body, of limited size. Raises EngineError or HTTPException."""
    chunks = bytearray()
    try:
        async for chunk in request.stream():
            chunks += chunk
            if len(chunks) > _BODY_LIMIT:
                raise HTTPException(413, f"the body is larger than {_BODY_LIMIT >> 20} MiB")
    except ClientDisconnect as error:
        raise HTTPException(_CLOSED_BY_CLIENT, "the client is gone") from error
    try:
        data = msgspec.json.decode(chunks)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the body is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise invalid(f"the body must be a JSON object, not {type(data).__name__}")
    return data


_Body = TypeVar("_Body", CompletionBody, ChatBody)


def _checked(kind: type[_Body], data: Any) -> _Body:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _as_invalid(error) from error


def _as_invalid(error: ValidationError) -> EngineError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    return invalid(f"{'.'.join(path)}: {message}" if path else message, path[0] if path else None)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result of the work, or None when the client left first; then the work is cancelled."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")


async def _on_engine_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    status, body = engine_error(error)
    return _json(body, status, {"Retry-After": "1"} if error.retryable else None)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(error_object(error.status_code, error.detail), error.status_code, dict(error.headers or {}))


async def _on_fault(_: Request, error: Exception) -> Response:
    return _json(error_object(500, f"the engine server failed: {type(error).__name__}: {error}", code="internal"), 500)

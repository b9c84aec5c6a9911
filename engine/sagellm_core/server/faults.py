"""Errors as HTTP answers in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sagellm_core.errors import EngineError
from sagellm_core.server.chunks import encode
from sagellm_core.server.retry import DrainRate
from sagellm_core.server.shapes import engine_error, error_object

_LOADING_SECONDS = 1


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(encode(body), status, headers, media_type="application/json")


def on_refusal(drain: DrainRate) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler of EngineError: a full queue says when to come again, by how fast it drains."""

    async def handle(_: Request, error: Exception) -> Response:
        assert isinstance(error, EngineError)
        status, body = engine_error(error)
        if not error.retryable:
            return json_answer(body, status)
        seconds = drain.refused() if status == 429 else _LOADING_SECONDS
        return json_answer(body, status, {"Retry-After": str(seconds)})

    return handle


async def on_http_error(_: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, no such method."""
    assert isinstance(error, HTTPException)
    return json_answer(error_object(error.status_code, error.detail), error.status_code, dict(error.headers or {}))


async def on_fault(_: Request, error: Exception) -> Response:
    """A fault of the server's own; it is logged by the server beneath."""
    message = f"the engine server failed: {type(error).__name__}: {error}"
    return json_answer(error_object(500, message, code="internal"), 500)

"""HTTP bodies, read and checked in time that is bounded by what they may hold, not by what they hold."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from sagellm_core.errors import EngineError, invalid

BODY_LIMIT = 16 << 20
CLOSED_BY_CLIENT = 499
_MOST_BRACKETS = 1 << 17
_MOST_COMMAS = 1 << 21

_Body = TypeVar("_Body", bound=BaseModel)


async def read_body(request: Request, kind: type[_Body], **fixed: Any) -> _Body:
    """The body of a request; `fixed` fields are as the route says.

    Raises EngineError that names the field at fault, or HTTPException.
    """
    chunks = bytearray()
    try:
        async for chunk in request.stream():
            chunks += chunk
            if len(chunks) > BODY_LIMIT:
                raise HTTPException(413, f"the body is larger than {BODY_LIMIT >> 20} MiB")
    except ClientDisconnect as error:
        raise HTTPException(CLOSED_BY_CLIENT, "the client is gone") from error
    return checked(kind, decode(chunks) | fixed)


def decode(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object. Raises EngineError.

    Decoding holds the interpreter, and costs by the number of values rather than by their length: a body of millions
    of tiny lists is refused after counting its brackets and commas. Long texts may hold many of both.
    """
    if data.count(b"[") + data.count(b"{") > _MOST_BRACKETS or data.count(b",") > _MOST_COMMAS:
        raise invalid("the body holds too many values")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def checked(kind: type[_Body], data: Any) -> _Body:
    """The object as a body of this kind. Raises EngineError."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise as_invalid(error) from error


def as_invalid(error: ValidationError) -> EngineError:
    """The first fault, with the field that it is in."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    return invalid(f"{'.'.join(path)}: {message}" if path else message, path[0] if path else None)

"""Whole (not streamed) answers of engines: read, checked, brought into OpenAI's shape."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
import msgspec

from sage.llm.asgi import JSON_TYPE, ApiError, Header, error_body
from sage.llm.control_plane.executors.http_client import UpstreamUnreachable
from sage.llm.control_plane.upstream import Upstream

_PASSED_ON = ("retry-after",)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, ready for the client."""

    status: int
    body: bytes
    headers: tuple[Header, ...]


async def read_answer(response: aiohttp.ClientResponse, upstream: Upstream) -> Answer:
    """Return an engine's answer.

    Raises UpstreamUnreachable where the body breaks off (nothing reached the client yet), ApiError 502 where the
    answer is no JSON. Errors that are not in OpenAI's shape are brought into it; their status stays.
    """
    try:
        body = await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UpstreamUnreachable("it went away in the middle of its answer", sent=True) from error
    kind = response.headers.get("content-type", "")
    if "json" not in kind or body.lstrip()[:1] not in (b"{", b"["):
        raise _not_json(upstream, response.status, kind)
    headers = [JSON_TYPE]
    headers += [(name.encode(), response.headers[name].encode()) for name in _PASSED_ON if name in response.headers]
    if response.status >= 400:
        body = _shaped(body, response.status)
    return Answer(response.status, body, tuple(headers))


def _not_json(upstream: Upstream, status: int, kind: str) -> ApiError:
    """Return the refusal of an answer that is no JSON."""
    what = kind.split(";")[0].strip()[:60] or "nothing that is JSON"
    return ApiError(
        502,
        f"The engine {upstream.name!r} answered status {status} with {what} instead of JSON. Is {upstream.url} an "
        "OpenAI-compatible server?",
        type="upstream_error",
        code="upstream_not_json",
    )


_ABSENT = msgspec.Raw()


class _AnyError(msgspec.Struct):
    """The places where servers put their error."""

    error: msgspec.Raw = _ABSENT
    detail: msgspec.Raw = _ABSENT
    message: str | None = None


def _shaped(body: bytes, status: int) -> bytes:
    """Return an error body in OpenAI's shape; one that already is in it stays byte for byte."""
    try:
        found = msgspec.json.decode(body, type=_AnyError)
    except msgspec.DecodeError:
        return error_body("The engine refused the request.", _kind(status))
    if bytes(found.error).startswith(b"{"):
        return body
    text = found.message or next((bytes(raw).decode() for raw in (found.error, found.detail) if bytes(raw)), "")
    return error_body(text.strip('"')[:2000] or "The engine refused the request.", _kind(status))


def _kind(status: int) -> str:
    """Return OpenAI's error type for a status."""
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"

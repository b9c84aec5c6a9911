"""Passes an engine's event stream on, chunk by chunk, undecoded.

Only whole events leave: where an engine dies inside one, the client never sees its first half, and the error event
that follows is not glued to it.
"""

from __future__ import annotations

import time

import aiohttp

from sage.llm.asgi import error_body
from sage.llm.control_plane.executors.http_client import UpstreamUnreachable
from sage.llm.control_plane.metrics_collector import MetricsCollector
from sage.llm.control_plane.upstream import Upstream
from sage.llm.http_app import Request

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


async def relay_stream(
    request: Request, response: aiohttp.ClientResponse, upstream: Upstream, metrics: MetricsCollector
) -> None:
    """Pass the whole stream on. The answer begins with the first event.

    Raises UpstreamUnreachable where the engine went away before any event. Where it dies later, or ends the stream
    without `[DONE]`, the client gets one error event, then the end of the body, and no `[DONE]`.
    """
    rest = b""
    last = b""
    try:
        async for data in response.content.iter_any():
            whole, rest = split_events(rest + data)
            if not whole:
                continue
            if request.status == 0:
                metrics.first_chunk(time.perf_counter() - request.started)
                await request.begin(200, _HEADERS)
            await request.chunk(whole)
            last = whole
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if request.status == 0:
            raise UpstreamUnreachable("it went away before its first event", sent=True) from error
        await _break_off(request, upstream, metrics)
        return
    if request.status == 0:
        raise UpstreamUnreachable("it ended the stream before its first event", sent=True)
    if is_complete(last, rest):
        if rest:
            await request.chunk(rest + b"\n\n")
        await request.end()
    else:
        await _break_off(request, upstream, metrics)


async def _break_off(request: Request, upstream: Upstream, metrics: MetricsCollector) -> None:
    """Say that the engine died, and close."""
    metrics.stream_broke()
    upstream.suspect = upstream.managed
    error = error_body(
        f"The engine {upstream.name!r} stopped in the middle of the answer. The text so far is not complete; "
        "send the request again.",
        "server_error",
        code="upstream_died",
    )
    await request.chunk(b"data: " + error + b"\n\n")
    await request.end()


def split_events(data: bytes) -> tuple[bytes, bytes]:
    """Return (whole events, the beginning of the next one)."""
    end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 1)
    return (data[:end], data[end:]) if end > 1 else (b"", data)


def is_complete(last: bytes, rest: bytes) -> bool:
    """Whether a stream that ended did so properly: with `[DONE]`, or with an error event of the engine's own.

    `last` holds the last whole events, `rest` what followed them. An answer may speak of "[DONE]" without being over.
    """
    event = rest.strip() or last.replace(b"\r\n", b"\n").strip().rsplit(b"\n\n", 1)[-1]
    data = event[event.rfind(b"\ndata:") + 1 :].removeprefix(b"data:").strip()
    return data == b"[DONE]" or data.startswith(b'{"error"')

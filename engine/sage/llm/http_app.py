"""A small ASGI application: exact routes, OpenAI-shaped errors, one place that sees every request end.

Knows nothing of models; the gateway and the embedding server give it their handlers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import msgspec

from sage.common.logs import get_logger
from sage.llm.asgi import (
    JSON_TYPE,
    ApiError,
    ClientDisconnected,
    Header,
    Receive,
    Scope,
    Send,
    read_body,
    request_id,
)

_log = get_logger("sage.llm.http")

CLIENT_CLOSED_REQUEST = 499  # as nginx counts a client that left


class Request:
    """One request and its answer. `status` is 0 until the answer has begun."""

    __slots__ = ("extra_headers", "id", "path", "receive", "route", "scope", "send", "started", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, route: str) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.route = route
        self.path: str = scope["path"]
        self.id = request_id(scope)
        self.started = time.perf_counter()
        self.status = 0
        self.extra_headers: list[Header] = [(b"x-sage-request-id", self.id)]

    async def body(self, limit: int) -> bytes:
        """Return the body; raises ApiError 413 past `limit` bytes."""
        return await read_body(self.scope, self.receive, limit)

    async def respond(self, status: int, body: bytes, headers: Iterable[Header] = (JSON_TYPE,)) -> None:
        """Send a whole answer; content-length is added."""
        await self.begin(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.send({"type": "http.response.body", "body": body})

    async def respond_json(self, status: int, value: object) -> None:
        """Send a value as JSON."""
        await self.respond(status, msgspec.json.encode(value))

    async def refuse(self, error: ApiError) -> None:
        """Send an error in OpenAI's shape."""
        await self.respond(error.status, error.body(), (JSON_TYPE, *error.headers))

    async def begin(self, status: int, headers: Iterable[Header]) -> None:
        """Send the status line and the headers; `chunk` and `end` follow."""
        self.status = status
        await self.send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *self.extra_headers]},
        )

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


Handler = Callable[[Request], Awaitable[None]]
Observer = Callable[[str, int, float], None]


@dataclass(frozen=True, slots=True)
class Route:
    """A path with its handlers by method. A path that ends in "/" also serves everything below it."""

    path: str
    handlers: Mapping[str, Handler]


async def _nothing() -> None:
    """Do nothing at start or stop."""


@dataclass(slots=True)
class HttpApp:
    """The ASGI application.

    `observe(route, status, seconds)` is called once for each request when it is over; `route` is the path of the route,
    or "other", so that metrics never carry what users typed. `start` and `stop` run with the server's lifespan.
    """

    routes: Sequence[Route]
    observe: Observer
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing
    _exact: dict[str, Route] = field(init=False)
    _prefixes: list[Route] = field(init=False)

    def __post_init__(self) -> None:
        self._exact = {route.path: route for route in self.routes if not route.path.endswith("/")}
        self._prefixes = [route for route in self.routes if route.path.endswith("/")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the ASGI server."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Run `start` and `stop` when the server says so."""
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _find(self, path: str) -> Route | None:
        """Return the route of a path."""
        return self._exact.get(path) or next((route for route in self._prefixes if path.startswith(route.path)), None)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever happens, it is answered where it still can be, and observed once."""
        route = self._find(scope["path"])
        request = Request(scope, receive, send, route.path if route else "other")
        try:
            await self._handler(route, scope)(request)
        except ApiError as error:
            if request.status == 0:
                await request.refuse(error)
        except ClientDisconnected:
            request.status = CLIENT_CLOSED_REQUEST
        except Exception:
            _log.exception("request failed", request_id=request.id.decode(), route=request.route)
            if request.status != 0:
                raise
            await request.refuse(
                ApiError(500, "An internal error occurred; the log has the details.", type="server_error")
            )
        finally:
            self.observe(request.route, request.status or CLIENT_CLOSED_REQUEST, time.perf_counter() - request.started)

    def _handler(self, route: Route | None, scope: Scope) -> Handler:
        """Return the handler of a request, or one that refuses it."""
        method, path = scope["method"], scope["path"]
        if route is None:
            return _refusing(self._unknown(path))
        handler = route.handlers.get(method)
        if handler is not None:
            return handler
        if method == "HEAD" and "GET" in route.handlers:
            return route.handlers["GET"]
        allowed = ", ".join(sorted(route.handlers))
        return _refusing(
            ApiError(
                405,
                f"{method} is not allowed on {path}. Allowed: {allowed}.",
                code="method_not_allowed",
                headers=[(b"allow", allowed.encode())],
            )
        )

    def _unknown(self, path: str) -> ApiError:
        """Return the refusal of an unknown path, naming the nearest one."""
        near = get_close_matches(path, self._exact, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(sorted(self._exact))}."
        return ApiError(404, f"There is no route {path[:200]}.{hint}", code="unknown_url")


def _refusing(error: ApiError) -> Handler:
    """Return a handler that raises."""

    async def refuse(request: Request) -> None:
        raise error

    return refuse

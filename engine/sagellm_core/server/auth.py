"""Who needs an API key, and whether it is one."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from sagellm_core.server.chunks import encode
from sagellm_core.server.shapes import error_object

OPEN_PATHS = frozenset({"/", "/health", "/metrics"})
"""What supervisors and scrapers ask without a key."""


class KeyCheck:
    """Lets a request through that brings one of the keys as `Authorization: Bearer KEY`; answers others with 401.

    The keys themselves are not kept, only their hashes, which are compared in constant time.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._hashes = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        message = "this engine wants an API key: Authorization: Bearer KEY"
        body = encode(error_object(401, message, code="invalid_api_key"))
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = given.partition(b" ")
        if kind.lower() != b"bearer":
            return False
        found = sha256(key.strip()).digest()
        return any(hmac.compare_digest(found, known) for known in self._hashes)

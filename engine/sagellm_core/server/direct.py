"""A way from an answer's bytes to its connection that is shorter than ASGI's `send`.

ASGI passes a dictionary through a coroutine of every layer for each piece of a body: for a token that costs more than
making its chunk. Under uvicorn with this protocol, a request's scope has an extension that frames a piece and hands it
to the transport. Where a piece may not go that way (a reader is slow, the client is gone, the body is not chunked), it
goes through `send`. Other servers do not have the extension.
"""

from __future__ import annotations

from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_EXTENSION = "sage.direct"


class Direct:
    """The body of one response."""

    __slots__ = ("_cycle", "_is_open", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._write = cycle.transport.write
        self._is_open = False

    def take(self, data: bytes) -> bool:
        """Send a piece, which must not be empty: False when it has to go through `send`."""
        if not self._is_open and not self._may_open():
            return False
        self._write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def close(self) -> None:
        """Look again before the next piece."""
        self._is_open = False

    def _may_open(self) -> bool:
        cycle = self._cycle
        closed = cycle.flow.write_paused or cycle.disconnected or cycle.response_complete
        self._is_open = bool(cycle.chunked_encoding) and not closed
        return self._is_open


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with the extension."""

    _direct: Direct | None = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle.scope is self.scope:
            self._close()
            self._direct = Direct(self.cycle)
            cast("dict[str, Any]", self.scope)["extensions"] = {_EXTENSION: self._direct}

    def pause_writing(self) -> None:
        self._close()
        super().pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._close()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._close()
        super().on_response_complete()

    def _close(self) -> None:
        if self._direct is not None:
            self._direct.close()


def direct_of(scope: Scope) -> Direct | None:
    """The extension, where there is one."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    return extensions.get(_EXTENSION)

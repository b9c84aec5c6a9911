"""A way from an answer's bytes to its connection that is shorter than ASGI's `send`.

ASGI passes a dictionary through a coroutine of every layer for each piece of a body: for a token that costs more than
making its chunk. Under uvicorn with this protocol, a request's scope has an extension that frames a piece and hands it
to the transport. Whether a piece may go that way is asked each time; where it may not, it goes through `send`, which
waits for slow readers. Other servers do not have the extension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

Direct = Callable[[bytes], bool]
"""Takes a piece of a body that has begun: False when it has to go through `send`."""

_EXTENSION = "sage.direct"


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with the extension."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cycle = self.cycle
        if cycle.scope is self.scope:
            cast("dict[str, Any]", self.scope)["extensions"] = {_EXTENSION: _direct(cycle)}


def direct_of(scope: Scope) -> Direct | None:
    """The extension, where there is one."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    return extensions.get(_EXTENSION)


def _direct(cycle: RequestResponseCycle) -> Direct:
    flow, transport = cycle.flow, cycle.transport
    write = transport.write

    def direct(data: bytes) -> bool:
        if flow.write_paused or not cycle.chunked_encoding or cycle.response_complete:
            return False
        if not cycle.disconnected and data:
            write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    return direct

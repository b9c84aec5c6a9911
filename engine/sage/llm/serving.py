"""Runs one of our ASGI applications on uvicorn, the same way for every daemon."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from sage.llm.asgi import ASGIApp

DRAIN_SECONDS = 5


def serve(app: ASGIApp, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then drain open requests for up to `DRAIN_SECONDS`."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop=_loop(),
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    # uvicorn takes TERM over, and raises it again when it has drained: then it has nothing left to do.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[sock])


def _loop() -> str:
    """Return uvicorn's name of the event loop: uvloop where there is one."""
    return "asyncio" if sys.platform == "win32" else "uvloop"

"""Runs one of our ASGI applications on uvicorn, the same way for every daemon.

Binds before anything else, so that a taken port is one clear line and exit code 1 instead of a traceback.
"""

from __future__ import annotations

import errno
import signal
import socket
import sys
from typing import TYPE_CHECKING

from sage.common.errors import ConfigError, PortInUseError, SageError

if TYPE_CHECKING:
    from sage.llm.asgi import ASGIApp

DRAIN_SECONDS = 5
_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Return a listening-ready TCP socket; port 0 takes a free one.

    Raises PortInUseError naming the holder where the port is taken, ConfigError where the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            from sage.common.config.ports import port_holder

            raise PortInUseError(port, port_holder(port)) from error
        raise ConfigError(
            f"Cannot listen on {host}:{port}",
            cause=getattr(error, "strerror", None) or str(error),
            hint="Try --host 127.0.0.1",
        ) from error
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


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
        backlog=_BACKLOG,
    )
    server = uvicorn.Server(config)
    # uvicorn takes TERM over, and raises it again when it has drained: then it has nothing left to do.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[sock])


def _loop() -> str:
    """Return uvicorn's name of the event loop: uvloop where there is one."""
    return "asyncio" if sys.platform == "win32" else "uvloop"


def report(error: SageError) -> int:
    """Print an error as the CLI would, on stderr, and return its exit code."""
    for label, text in (("error", error.title), ("why", error.cause), ("next", error.hint)):
        if text:
            print(f"{label}: {text}", file=sys.stderr)
    return error.exit_code

"""How every daemon takes its port, and how it says why it does not start."""

from __future__ import annotations

import errno
import socket
import sys

from sage.common.errors import ConfigError, PortInUseError, SageError

_BACKLOG = 2048
_LAST_PORT = 65535


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket, not blocking; port 0 takes a free one.

    Raises PortInUseError naming the holder where the port is taken, ConfigError where there is no such port or the
    address is not ours.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(
            f"--port {port} is no port", cause=f"ports go from 1 to {_LAST_PORT}", hint="Any free one:  --port 0"
        )
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            from sage.common.config.ports import port_holder

            raise PortInUseError(port, port_holder(port)) from error
        raise ConfigError(
            f"Cannot listen on {host}:{port}",
            cause=error.strerror or str(error),
            hint="Try --host 127.0.0.1",
        ) from error
    sock.setblocking(False)
    return sock


def report(error: SageError) -> int:
    """Print an error as the command line does, on stderr, and return its exit code."""
    for label, text in (("error", error.title), ("why", error.cause), ("next", error.hint)):
        if text:
            print(f"{label}: {text}", file=sys.stderr)
    return error.exit_code

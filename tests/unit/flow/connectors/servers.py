"""Small servers for the tests: lines over TCP, event streams over HTTP."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = Callable[[socket.socket, int], None]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    handler: Handler
    connections = 0


class _Request(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.connections += 1
        self.server.handler(self.request, self.server.connections)


@contextmanager
def serving(handler: Handler, port: int = 0) -> Iterator[_Server]:
    """`handler(connection, number)` runs in a thread for each connection; the number counts from 1."""
    with _Server(("127.0.0.1", port), _Request) as server:
        server.handler = handler
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def request_head(connection: socket.socket) -> str:
    """The head of an HTTP request."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(4096)
        if not chunk:
            break
        data += chunk
    return data.decode()


def reset(connection: socket.socket) -> None:
    """Break the connection off, so that the other side sees an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()

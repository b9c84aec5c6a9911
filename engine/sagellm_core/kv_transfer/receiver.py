"""The receiving end: takes blocks from any number of senders, and tells each when its slots are free again."""

from __future__ import annotations

import hmac
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sagellm_core.errors import EngineError
from sagellm_core.kv_transfer.messages import (
    Blocks,
    Credit,
    Greeting,
    KVAddress,
    KVForm,
    ToReceiver,
    Welcome,
    machine_id,
)
from sagellm_core.kv_transfer.slots import SharedSlots
from sagellm_core.wire import Connection, Fault
from sagellm_protocol.errors import ErrorCode

_GREET_WITHIN_S = 10.0
_GREETING_BYTES = 64 << 10


@dataclass(slots=True, frozen=True)
class Arrival:
    """Blocks that came; the first of their bytes at `began`, on the monotonic clock.

    Call `done` when `content` is copied: only then may the sender use its memory again.
    """

    transfer: str
    first: int
    count: int
    content: memoryview
    cached: int
    began: float
    done: Callable[[], None]


class KVReceiver:
    """Listens on TCP, and on a socket file (in `folder`) for senders of this host.

    `on_arrival` is called on threads of its own.
    """

    def __init__(
        self,
        form: KVForm,
        token: str,
        on_arrival: Callable[[Arrival], None],
        *,
        host: str = "127.0.0.1",
        folder: str = "",
    ) -> None:
        self.form = form
        self._token = token
        self._on_arrival = on_arrival
        self._folder = Path(tempfile.mkdtemp(prefix="sage-kv-", dir=folder or None))
        path = self._folder / "blocks"
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(path))
        local.listen()
        remote = socket.create_server((host, 0))
        self.address = KVAddress(host, remote.getsockname()[1], str(path), machine_id())
        self._listeners = [local, remote]
        self._connections: set[Connection] = set()
        self._door = threading.Lock()
        self._closed = False
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), name="sage-kv-door", daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop every sender. Safe to call twice."""
        with self._door:
            self._closed = True
            connections = list(self._connections)
        for listener in self._listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()
        for connection in connections:
            connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), name="sage-kv-receive", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock, ToReceiver)
        with self._door:
            if self._closed:
                connection.close()
                return
            self._connections.add(connection)
        slots: SharedSlots | None = None
        try:
            slots = self._welcome(connection)
            while True:
                message, body = connection.receive()
                self._take(connection, message, body, slots)
        except EngineError as error:
            self._refuse(connection, error)
        except (OSError, EOFError):
            pass
        finally:
            self._connections.discard(connection)
            connection.close()
            if slots is not None:
                slots.close()

    def _welcome(self, connection: Connection) -> SharedSlots | None:
        """Check who greets. Raises EngineError for a stranger, and for blocks of another form."""
        sock = connection.sock
        sock.settimeout(_GREET_WITHIN_S)
        connection.limit = _GREETING_BYTES
        greeting, _ = connection.receive()
        if not isinstance(greeting, Greeting) or not hmac.compare_digest(greeting.token.encode(), self._token.encode()):
            raise EngineError(ErrorCode.KV_TRANSFER_FAILED, "the sender does not belong to this runtime")
        if greeting.form != self.form:
            raise EngineError(
                ErrorCode.KV_TRANSFER_FAILED,
                "the sender's KV blocks have another form",
                cause=f"{greeting.form}, here {self.form}",
            )
        slots = None
        if greeting.shared:
            _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
            if not descriptors:
                raise ConnectionError("no shared memory came with the greeting")
            slots = _mapped(descriptors[0], greeting)
        sock.settimeout(None)
        connection.limit = max(greeting.slot_bytes, _GREETING_BYTES)
        connection.send(Welcome())
        return slots

    def _take(self, connection: Connection, message: object, body: bytearray, slots: SharedSlots | None) -> None:
        if not isinstance(message, Blocks):
            raise ConnectionError("a sender says nothing but blocks")
        size = message.count * self.form.block_bytes
        if slots is None:
            content = memoryview(body)
        else:
            if not 0 <= message.slot < slots.count or size > slots.size:
                raise ConnectionError("blocks outside the shared slots")
            content = slots.slot(message.slot)[:size]
        if len(content) != size:
            raise ConnectionError(f"{message.count} blocks with {len(content)} bytes")

        def done() -> None:
            try:
                connection.send(Credit(message.transfer, message.slot))
            except OSError:
                pass

        places = message.first, message.count
        self._on_arrival(Arrival(message.transfer, *places, content, message.cached, connection.head_at, done))

    def _refuse(self, connection: Connection, error: EngineError) -> None:
        try:
            connection.send(Fault.of(error))
        except OSError:
            pass


def _mapped(descriptor: int, greeting: Greeting) -> SharedSlots:
    """The sender's slots. Raises ConnectionError when the memory is smaller than the greeting says."""
    if os.fstat(descriptor).st_size < greeting.slots * greeting.slot_bytes:
        os.close(descriptor)
        raise ConnectionError("the shared memory is smaller than its slots")
    return SharedSlots(descriptor, greeting.slot_bytes, greeting.slots)

"""The sending end: blocks of one process's cache to one receiver, a bounded number of slots under way at a time."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from sagellm_core.errors import EngineError
from sagellm_core.kv_transfer.messages import Blocks, Credit, Greeting, KVAddress, KVForm, ToSender, Welcome, machine_id
from sagellm_core.kv_transfer.slots import SharedSlots
from sagellm_core.wire import Connection, Fault
from sagellm_protocol.errors import ErrorCode

SLOTS = 8
SLOT_BYTES = 2 << 20
_CONNECT_WITHIN_S = 10.0


class KVTransferChannel:
    """Made by `open`. `send` is for one thread; the callbacks come from threads of the channel.

    `on_free(transfer)`: a slot with blocks of that transfer is free again (with "": the channel has just opened).
    `on_broken(error)`: nothing can be sent any more; what was not confirmed is lost. Called once at most.
    """

    def __init__(
        self,
        address: KVAddress,
        form: KVForm,
        token: str,
        *,
        transport: str = "auto",
        slots: int = SLOTS,
        slot_bytes: int = SLOT_BYTES,
        on_free: Callable[[str], None],
        on_broken: Callable[[EngineError], None],
    ) -> None:
        self.address = address
        self.form = form
        self.blocks_per_slot = max(1, slot_bytes // form.block_bytes)
        self.shared = _shares(address, transport)
        self._slots = slots
        self._token = token
        self._on_free, self._on_broken = on_free, on_broken
        self._free: deque[int] = deque()
        self._frames: SimpleQueue[tuple[Blocks, bytes | bytearray] | None] = SimpleQueue()
        self._memory: SharedSlots | None = None
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._told = threading.Lock()

    def open(self) -> None:
        """Begin to connect; `on_free` tells when it is done."""
        threading.Thread(target=self._run, name="sage-kv-send", daemon=True).start()

    @property
    def num_free(self) -> int:
        """How many times `send` may be called now."""
        return len(self._free)

    def send(self, transfer: str, first: int, count: int, content: bytes | bytearray, *, cached: int = 0) -> None:
        """Send `count` blocks (`blocks_per_slot` at most), numbers `first ..` of their transfer; needs a free slot."""
        slot = self._free.popleft()
        if self._memory is not None:
            self._memory.slot(slot)[: len(content)] = content
            content = b""
        self._frames.put((Blocks(transfer, first, count, slot, cached), content))

    def close(self) -> None:
        """End the connection without a word to `on_broken`."""
        self._closing.set()
        self._frames.put(None)
        if self._connection is not None:
            self._connection.close()

    # -- on the channel's threads -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._connect()
            self._free.extend(range(self._slots))
            threading.Thread(target=self._take_credits, args=(connection,), name="sage-kv-free", daemon=True).start()
            self._on_free("")
            while (frame := self._frames.get()) is not None:
                connection.send(*frame)
        except (OSError, EOFError, EngineError) as error:
            self._break(error)
        finally:
            if self._connection is not None:
                self._connection.close()
            if self._memory is not None:
                self._memory.close()

    def _connect(self) -> Connection:
        if self.shared:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(_CONNECT_WITHIN_S)
            sock.connect(self.address.path)
        else:
            sock = socket.create_connection((self.address.host, self.address.port), _CONNECT_WITHIN_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connection = Connection(sock, ToSender)
        size = self.blocks_per_slot * self.form.block_bytes
        connection.send(Greeting(self._token, self.form, self._slots, size, self.shared))
        if self.shared:
            self._memory = SharedSlots.create(size, self._slots)
            with suppress(BrokenPipeError):  # a receiver that refuses may have hung up; why, it has said before
                socket.send_fds(sock, [b"f"], [self._memory.descriptor])
        answer, _ = connection.receive()
        if isinstance(answer, Fault):
            raise answer.error()
        if not isinstance(answer, Welcome):
            raise ConnectionError("the receiver did not answer the greeting")
        sock.settimeout(None)
        return connection

    def _take_credits(self, connection: Connection) -> None:
        try:
            while True:
                answer, _ = connection.receive()
                if isinstance(answer, Fault):
                    raise answer.error()
                if isinstance(answer, Credit):
                    self._free.append(answer.slot)
                    self._on_free(answer.transfer)
        except (OSError, EOFError, EngineError) as error:
            self._break(error)
            self._frames.put(None)

    def _break(self, error: Exception) -> None:
        if self._closing.is_set() or not self._told.acquire(blocking=False):
            return
        self._free.clear()
        where = self.address.path if self.shared else f"{self.address.host}:{self.address.port}"
        failed = EngineError(ErrorCode.KV_TRANSFER_FAILED, f"Cannot send KV blocks to {where}", cause=str(error))
        self._on_broken(failed)


def _shares(address: KVAddress, transport: str) -> bool:
    """Whether the receiver can look into our memory."""
    if transport == "tcp":
        return False
    here = bool(address.path) and address.machine == machine_id() and Path(address.path).exists()
    if transport == "shm" and not here:
        raise EngineError(ErrorCode.KV_TRANSFER_FAILED, f"{address.host} is another host: no shared memory with it")
    return here

"""Messages between the processes of one engine: msgpack heads with raw bytes behind them.

A frame is the length of the head (4 bytes), the length of the body (8 bytes), both little-endian, the head, the body.
Nothing that comes in is ever executed or unpickled: a head is decoded into the types that the reader names.
"""

from __future__ import annotations

import socket
import threading
from struct import Struct as Format
from time import monotonic
from typing import Any

import msgspec
from pydantic import BaseModel

from sagellm_core.errors import EngineError, ModelLoadError
from sagellm_protocol.errors import ErrorCode

_SIZES = Format("<IQ")
MAX_FRAME = 8 << 30


class Fault(msgspec.Struct, frozen=True, tag=True):
    """An error of another process, as data."""

    code: str
    title: str
    cause: str = ""
    hint: str = ""
    param: str | None = None
    loading: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        if isinstance(error, EngineError):
            loading = isinstance(error, ModelLoadError)
            return cls(error.error_code, error.title, error.cause, error.hint, error.param, loading)
        return cls(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")

    def error(self) -> EngineError:
        if self.loading:
            return ModelLoadError(self.title, cause=self.cause, hint=self.hint)
        return EngineError(ErrorCode(self.code), self.title, param=self.param, cause=self.cause, hint=self.hint)


def _lower(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    raise NotImplementedError(f"{type(value).__name__} does not cross processes")


def _raise(kind: type, value: Any) -> Any:
    if issubclass(kind, BaseModel):
        return kind.model_validate(value)
    if kind is object:
        return value
    raise NotImplementedError(f"{kind.__name__} does not cross processes")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_lower)


def encode(message: Any) -> bytes:
    """msgpack of a message: structs, dataclasses, plain values, and the protocol's models."""
    return _ENCODER.encode(message)


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """A decoder into a type, or a union of tagged structs. Its `decode` raises msgspec.MsgspecError."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_raise)


class Connection:
    """Frames over a stream socket; any thread may send, one may receive.

    `limit` bounds what head and body of a frame may each have: nobody makes us reserve more memory. `head_at` is when
    the head of the last received frame was complete.
    """

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        self.sock = sock
        self.limit = MAX_FRAME
        self.head_at = 0.0
        self._decoder = decoder(kind)
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Any, body: bytes | bytearray | memoryview = b"") -> None:
        """Send one frame. Raises OSError when the other side is gone."""
        self.send_encoded(encode(message), body)

    def send_encoded(self, head: bytes, body: bytes | bytearray | memoryview = b"") -> None:
        with self._sending:
            self.sock.sendall(_SIZES.pack(len(head), len(body)) + head)
            if len(body):
                self.sock.sendall(body)

    def receive(self) -> tuple[Any, bytearray]:
        """The next frame. Raises EOFError when the other side closed, ConnectionError on nonsense."""
        head_size, body_size = _SIZES.unpack(self._exactly(_SIZES.size))
        if max(head_size, body_size) > self.limit:
            raise ConnectionError(f"a frame of {head_size} + {body_size} bytes is not one of ours")
        head = self._exactly(head_size)
        self.head_at = monotonic()
        try:
            message = self._decoder.decode(head)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConnectionError(f"a message is not one of ours: {error}") from error
        return message, self._exactly(body_size)

    def close(self) -> None:
        """Close the socket; who waits in `receive` on either side gets an error."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        at = 0
        while at < size:
            try:
                count = self.sock.recv_into(view[at:])
            except ConnectionResetError:
                count = 0
            if not count:
                raise EOFError("the other side closed the connection")
            at += count
        return buffer

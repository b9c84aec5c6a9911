"""What goes through the sockets between the processes of one job: frames, each with a head of fixed size.

A frame is a kind, the gate and channel that it is for (zero where it is for the process), its body and buffers: large
arrays travel beside the pickle that mentions them (pickle protocol 5, PEP 574), without being copied into it. Pickles
are read from processes of the same job only, over sockets that no other process has.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from sage.common.errors import PipelineError

__all__ = ["Connection", "Frame", "FrameKind", "packed", "unpacked"]

_HEAD = struct.Struct("<BxHIIQ")
_LENGTH = struct.Struct("<Q")
_READ_AHEAD = 1 << 18
_BESIDE = 1 << 14  # bytes: smaller buffers stay in the pickle
_MOST_BUFFERS = 1 << 15
_SEND_BUFFER = 1 << 20


class FrameKind(IntEnum):
    """What a frame is."""

    MESSAGE = 0  # between the master and a worker
    BATCH = 1
    EVENT = 2
    CREDIT = 3


class Frame(NamedTuple):
    """One that came."""

    kind: int
    gate: int
    channel: int
    body: bytes
    buffers: list[bytearray]


class Connection:
    """One end of a socket pair. Many threads send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._socket = end
        self._stream = io.BufferedReader(end.makefile("rb", 0), _READ_AHEAD)
        self._lock = threading.Lock()

    def send(
        self,
        kind: FrameKind,
        body: bytes,
        buffers: Sequence[pickle.PickleBuffer] = (),
        *,
        gate: int = 0,
        channel: int = 0,
    ) -> None:
        """One frame, whole; waits while the socket is full. Raises OSError when the other end is gone."""
        head = _HEAD.pack(kind, len(buffers), gate, channel, len(body))
        with self._lock:
            self._socket.sendall(head + body)
            for buffer in buffers:
                view = buffer.raw()
                self._socket.sendall(_LENGTH.pack(view.nbytes))
                self._socket.sendall(view)

    def receive(self) -> Frame | None:
        """The next frame; None when the other end is gone, or this one was closed: then nothing more is received."""
        try:
            kind, count, gate, channel, length = _HEAD.unpack(self._read(_HEAD.size))
            return Frame(kind, gate, channel, self._read(length), [self._buffer() for _ in range(count)])
        except (OSError, ValueError):  # reset by a peer that was killed; closed here
            self._stream.close()
            return None

    def close(self) -> None:
        """Tell the other end, and whoever receives here; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionResetError("the other end is gone")
        return data

    def _buffer(self) -> bytearray:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        buffer = bytearray(length)
        if self._stream.readinto(buffer) < length:
            raise ConnectionResetError("the other end is gone")
        return buffer


def packed(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """A value of this job, for another of its processes. Raises PipelineError for one that cannot leave this one."""
    buffers: list[pickle.PickleBuffer] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        """Whether it goes into the pickle."""
        if len(buffers) >= _MOST_BUFFERS or buffer.raw().nbytes < _BESIDE:
            return True
        buffers.append(buffer)
        return False

    try:
        return pickle.dumps(value, 5, buffer_callback=stays), buffers
    except Exception:  # of a class that only the script, or a function, has: goes along by value
        return _by_value(value), []


def unpacked(body: bytes, buffers: Sequence[bytearray] = ()) -> Any:
    """What `packed` was given, in another process of the job."""
    return pickle.loads(body, buffers=buffers)  # noqa: S301 - from a process of the same job, see above


def _by_value(value: Any) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, 5))
    except Exception as error:
        raise PipelineError(
            "A record cannot be sent to another process",
            cause=f"{type(error).__name__}: {error}",
            hint="send plain data, or run this job with execution.runtime: threads",
        ) from error

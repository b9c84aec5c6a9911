"""Lines from a TCP server (after Flink's SocketTextStreamFunction).

A socket cannot be asked again: what was read after the last checkpoint is lost when the job fails. For more than tests
and tools put something in between that keeps what it sends.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sage.core.connectors.backoff import Backoff, Retry
from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split
from sage.core.connectors.threaded import ThreadedReader

__all__ = ["SocketSource"]

log = logging.getLogger("sage.core")
_CHUNK = 2**16
_LONGEST = 16 * 2**20  # bytes of a line
_WAIT = 0.2  # seconds between two looks whether the reader was closed


@dataclass(frozen=True)
class SocketSource(Source[str]):
    """The lines of a connection. It ends where the server closes it, unless `reconnect` asks for more."""

    host: str
    port: int
    encoding: str = "utf-8"
    reconnect: bool = False
    retry: Retry = field(default_factory=Retry)
    bounded = False

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split(f"{self.host}:{self.port}")]

    def reader(self, context: ReaderContext) -> SourceReader[str]:
        """See Source."""
        return SocketReader(self, context)


class SocketReader(ThreadedReader[str]):
    """One connection, made again after it was lost."""

    def __init__(self, source: SocketSource, context: ReaderContext) -> None:
        super().__init__(f"{source.host}:{source.port}")
        self._source = source
        self._bad_record = context.bad_record

    def run(self, splits: dict[str, Any]) -> None:
        """See ThreadedReader."""
        (split,) = splits
        backoff = Backoff(self._source.retry, split)
        while True:
            self.again(partial(self._connected, split), backoff, (OSError,))
            if not self._source.reconnect:
                return
            self.wait(self._source.retry.first)

    def decode(self, read: bytes) -> list[str]:
        """See ThreadedReader."""
        try:
            return [read.removesuffix(b"\r").decode(self._source.encoding)]
        except UnicodeError as error:
            self._bad_record(read.decode("utf-8", "backslashreplace"), error)
            return []

    def _connected(self, split: str, backoff: Backoff) -> None:
        rest = b""
        with socket.create_connection((self._source.host, self._source.port), timeout=10) as connection:
            connection.settimeout(_WAIT)
            try:
                while chunk := self._receive(connection):
                    backoff.succeeded()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self.put(split, line, None)
                    if len(rest) > _LONGEST:
                        raise ValueError(f"a line from {split} is longer than {_LONGEST:,} bytes")
            except OSError:
                if rest:
                    log.warning("%s: the connection broke in a line; its first %d bytes are left out", split, len(rest))
                raise
        if rest and not self.is_closed:
            self.put(split, rest, None)

    def _receive(self, connection: socket.socket) -> bytes:
        while not self.is_closed:
            with suppress(TimeoutError):
                return connection.recv(_CHUNK)
        return b""

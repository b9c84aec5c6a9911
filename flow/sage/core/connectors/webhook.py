"""An HTTP server whose POST requests are records.

`acknowledge="received"`: a request is answered as soon as its record waits in memory; it is lost if the job dies before
its next checkpoint. `acknowledge="checkpoint"`: it is answered when a checkpoint holds what the record has done; until
then the sender keeps it, and sends it again if there is no answer. With an `Idempotency-Key` header a request that is
sent again is not a second record: the keys of the last 10,000 records are part of checkpoints.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from sage.common.errors import PipelineError
from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split
from sage.core.connectors.threaded import ThreadedReader

__all__ = ["WebhookSource"]

_KEYS = 10_000
_CONNECTIONS = 256
_IDLE = 30.0  # seconds that a sender may take to send


@dataclass(frozen=True)
class WebhookSource(Source[Any]):
    """`token`: what senders must give as `Authorization: Bearer`; `hold`: seconds until a request that waits for its
    checkpoint is told to come again; `capacity`: records that may wait, then senders are told to come again."""

    port: int
    host: str = "127.0.0.1"
    path: str = "/"
    token: str | None = None
    acknowledge: str = "received"
    hold: float = 60.0
    max_body: int = 2**20
    capacity: int = 10_000
    bounded = False

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split(f"{self.host}:{self.port}{self.path}")]

    def reader(self, context: ReaderContext) -> SourceReader[Any]:
        """See Source."""
        return WebhookReader(self)


@dataclass(slots=True, eq=False)
class _Request:
    record: Any
    key: str
    number: int = 0
    safe: threading.Event | None = None


class WebhookReader(ThreadedReader[Any]):
    """A position is [number of the last record, keys of the last ones]."""

    def __init__(self, source: WebhookSource) -> None:
        super().__init__(f"webhook-{source.port}")
        self._source = source
        self._known: OrderedDict[str, _Request | None] = OrderedDict()  # by key; None: safe already
        self._keys: list[str] = []  # of what `poll` gave, the newest last
        self._unsafe: list[_Request] = []
        self._last = 0  # number of the last record that was given a place
        self._given = 0
        self._safe = 0  # number of the last record that a checkpoint holds
        self._lock = threading.Lock()
        self._split = ""

    def add_splits(self, splits: Sequence[Split]) -> None:
        """See SourceReader."""
        super().add_splits(splits)
        for split in splits:
            self._split = split.id
            if split.position is not None:
                self._given, self._keys = int(split.position[0]), list(split.position[1])
                self._last = self._given
                self._known.update(dict.fromkeys(self._keys))

    def run(self, splits: dict[str, Any]) -> None:
        """See ThreadedReader: serves until closed."""
        try:
            with _Server(self._source, self) as server:
                while not self.is_closed:
                    server.handle_request()
        except OSError as error:
            raise PipelineError(
                f"Cannot listen at {self._source.host}:{self._source.port}",
                cause=error.strerror or str(error),
                hint="choose another port",
            ) from error

    def take(self, record: Any, key: str) -> tuple[int, str]:
        """A request, in its own thread: the status and a word for the answer. May wait for a checkpoint."""
        with self._lock:
            known = self._known.get(key) if key else None
            if key and key in self._known:
                request = known
            elif self.is_closed or len(self._read) >= self._source.capacity:
                return 503, "busy"
            else:
                request = self._accept(record, key)
        if self._source.acknowledge != "checkpoint" or request is None:
            return 200, "known" if key and request is known else "ok"
        assert request.safe is not None, "made by _accept"
        safe = request.safe.wait(self._source.hold) and not self.is_closed
        return (200, "ok") if safe or request.number <= self._safe else (503, "not safe yet")

    def _accept(self, record: Any, key: str) -> _Request:
        self._last += 1
        request = _Request(record, key, self._last)
        if self._source.acknowledge == "checkpoint":
            request.safe = threading.Event()
        if key:
            self._known[key] = request if request.safe is not None else None
            while len(self._known) > 2 * _KEYS:
                self._known.popitem(last=False)
        with self._changed:
            self._read.append((self._split, request, None))
            self._changed.notify_all()
        return request

    def decode(self, read: _Request) -> list[Any]:
        """See ThreadedReader."""
        self._given = read.number
        if read.key:
            self._keys.append(read.key)
            if len(self._keys) > 2 * _KEYS:
                del self._keys[:-_KEYS]
        if read.safe is not None:
            self._unsafe.append(read)
        return [read.record]

    def snapshot(self) -> list[Split]:
        """See SourceReader."""
        return [Split(self._split, [self._given, self._keys[-_KEYS:]])] if self._splits else []

    def notify_complete(self, checkpoint_id: int, splits: Sequence[Split]) -> None:
        """Answers the requests whose records the checkpoint holds."""
        safe = max((split.position[0] for split in splits if split.position is not None), default=0)
        with self._lock:
            self._safe = max(self._safe, safe)
            for request in self._unsafe:
                if request.number <= safe:
                    self._known.update({request.key: None} if request.key else {})
                    assert request.safe is not None, "only those wait"
                    request.safe.set()
        self._unsafe = [request for request in self._unsafe if request.number > safe]

    def close(self) -> None:
        """See SourceReader; those who wait are told to come again."""
        super().close()
        with self._lock:
            for request in [*self._unsafe, *(read for _, read, _ in self._read)]:
                if request.safe is not None:
                    request.safe.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = 0.1  # seconds between two looks whether the reader was closed
    block_on_close = False
    request_queue_size = 128

    def __init__(self, source: WebhookSource, reader: WebhookReader) -> None:
        self.source = source
        self.reader = reader
        self._room = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__((source.host, source.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Closes connections above the limit at once."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Gives the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Senders that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "sage"
    sys_version = ""
    timeout = _IDLE

    def do_POST(self) -> None:
        """A record."""
        source = self.server.source
        if self.path.partition("?")[0] != source.path:
            return self._refuse(404, "not found")
        if source.token is not None and not self._is_allowed(source.token):
            return self._refuse(401, "wrong token")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return self._refuse(411, "Content-Length is needed")
        if int(length) > source.max_body:
            return self._refuse(413, f"at most {source.max_body} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return None
        try:
            record = self._record(body)
        except (msgspec.DecodeError, UnicodeError) as error:
            return self._answer(400, str(error))
        status, word = self.server.reader.take(record, self.headers.get("Idempotency-Key", ""))
        return self._answer(status, word)

    def do_GET(self) -> None:
        """Nothing to read here."""
        self._refuse(405, "POST records")

    do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are counted as the source's records."""

    def _is_allowed(self, token: str) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), token.encode())

    def _record(self, body: bytes) -> Any:
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind.startswith("text/"):
            return body.decode()
        return msgspec.json.decode(body)

    def _refuse(self, status: int, word: str) -> None:
        """Answer without having read the body: nothing else can come through this connection."""
        self.close_connection = True
        self._answer(status, word)

    def _answer(self, status: int, word: str) -> None:
        body = msgspec.json.encode({"status": word})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

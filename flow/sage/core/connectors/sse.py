"""Server-sent events (WHATWG HTML, section 9.2) as a source.

The position is the id of the last event; it is sent as `Last-Event-ID` when the connection is made again and after a
restore. Whether the server then goes on there is its affair: events without ids are lost while nobody listens.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sage.common.errors import UpstreamError
from sage.core.connectors.backoff import Backoff, Retry
from sage.core.connectors.base import ReaderContext, Source, SourceReader, Split
from sage.core.connectors.threaded import ThreadedReader

if TYPE_CHECKING:
    import httpx

__all__ = ["EventParser", "SseSource"]

_LONGEST = 16 * 2**20  # bytes of an event
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class SseSource(Source[Any]):
    """Events as dicts `{"event", "data", "id"}`; with `json` the value in `data` alone.

    With `reconnect` a stream that ends is opened again (as browsers do), until the server answers 204.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json: bool = False
    reconnect: bool = True
    timeout: float = 60.0  # seconds without a byte, comments included, after which the connection counts as lost
    retry: Retry = field(default_factory=Retry)
    bounded = False

    def splits(self) -> list[Split]:
        """See Source."""
        return [Split(self.url)]

    def reader(self, context: ReaderContext) -> SourceReader[Any]:
        """See Source."""
        return SseReader(self, context)


class SseReader(ThreadedReader[Any]):
    """One connection, made again after it was lost."""

    def __init__(self, source: SseSource, context: ReaderContext) -> None:
        super().__init__(source.url)
        self._source = source
        self._bad_record = context.bad_record
        self._last_id: str | None = None
        self._pause = source.retry.first
        self._response: httpx.Response | None = None

    def run(self, splits: dict[str, Any]) -> None:
        """See ThreadedReader."""
        import httpx

        ((split, self._last_id),) = splits.items()
        timeout = httpx.Timeout(10.0, read=self._source.timeout)
        with httpx.Client(timeout=timeout, headers=dict(self._source.headers)) as client:
            backoff = Backoff(self._source.retry, split)
            self._over = False
            while not self._over:
                self.again(partial(self._connected, client, split), backoff, (httpx.TransportError, _TryAgain))
                if not self._over:
                    self.wait(self._pause)

    def decode(self, read: dict[str, Any]) -> list[Any]:
        """See ThreadedReader."""
        if not self._source.json:
            return [read]
        import msgspec

        try:
            return [msgspec.json.decode(read["data"])]
        except (msgspec.DecodeError, UnicodeError) as error:
            self._bad_record(read, error)
            return []

    def close(self) -> None:
        """See SourceReader; a connection that waits is broken off."""
        self._closed.set()
        response = self._response
        if response is not None:
            _shut(response)
        super().close()

    def _connected(self, client: httpx.Client, split: str, backoff: Backoff) -> None:
        import httpx

        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        try:
            with client.stream("GET", self._source.url, headers=headers, follow_redirects=True) as response:
                self._response = response
                self._check(response)
                if response.status_code == 204:
                    self._over = True
                    return
                parser = EventParser(self._last_id or "")
                for chunk in response.iter_bytes():
                    backoff.succeeded()
                    for event in parser.feed(chunk):
                        self._last_id = event["id"]
                        self.put(split, event, self._last_id)
                    self._pause = self._pause if parser.retry is None else parser.retry
        except httpx.TransportError:
            if not self.is_closed:
                raise
        finally:
            self._response = None
        self._over = not self._source.reconnect or self.is_closed

    def _check(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code == 204 or (response.status_code == 200 and kind == "text/event-stream"):
            return
        problem = f"{self._source.url} answered {response.status_code} {kind}".rstrip()
        if response.status_code in _RETRIED:
            raise _TryAgain(problem)
        raise UpstreamError(problem, cause="that is no event stream", hint="check the address and the headers")


class EventParser:
    """Turns bytes, however they are cut, into events. Raises ValueError for an event above 16 MiB."""

    def __init__(self, last_id: str = "") -> None:
        self.retry: float | None = None  # seconds, where the server asked for it
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._text = ""
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id = last_id

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The events that these bytes complete."""
        self._text += self._decode(chunk)
        for line in self._lines():
            if not line:
                yield from self._dispatch()
            elif not line.startswith(":"):
                self._field(line)

    def _lines(self) -> Iterator[str]:
        """Whole lines: they end with CR, LF or both. A CR at the end may be half of both: it waits."""
        text = self._text
        held = text.endswith("\r")
        body = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = body.split("\n")
        self._text = rest + ("\r" if held else "")
        yield from lines
        self._limit(len(rest))

    def _limit(self, more: int) -> None:
        if self._size + more > _LONGEST:
            raise ValueError(f"an event is longer than {_LONGEST:,} bytes")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            self._limit(0)
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000

    def _dispatch(self) -> Iterator[dict[str, Any]]:
        if self._data:
            yield {"event": self._event or "message", "data": "\n".join(self._data), "id": self._id}
        self._data, self._event, self._size = [], "", 0


class _TryAgain(Exception):  # noqa: N818 - the server may be able later
    """An answer that is worth another attempt."""


def _shut(response: httpx.Response) -> None:
    """End a read that waits in another thread: closing alone would not wake it."""
    import socket
    from contextlib import suppress

    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

"""One daemon's ``/health`` and ``/metrics``, over one kept-alive connection, never for long.

Knows nothing of what the metrics mean. Only ``http://host:port`` addresses are asked, redirects are not followed, and
an answer is read up to a fixed size and a fixed moment, so that a broken daemon cannot hold the dashboard.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

__all__ = ["Answer", "Scraper"]

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a daemon said. ``health`` is its word (``ok``, ``starting``, ``unhealthy``) or ``""`` when it gave none.

    ``metrics`` is None when they could not be read; ``problem`` then says why in a few words.
    """

    health: str = ""
    reason: str = ""
    metrics: str | None = None
    problem: str = ""


class Scraper:
    """Asks one address again and again; reconnects as needed. Not thread-safe: one caller at a time."""

    def __init__(self, url: str, timeout_s: float = 0.8) -> None:
        parts = urlsplit(url)
        self.url = url
        self._host = parts.hostname if parts.scheme == "http" else None
        self._port = parts.port
        self._timeout = timeout_s
        self._connection: HTTPConnection | None = None

    def ask(self) -> Answer:
        """Health and metrics now; never raises, and takes about two timeouts at the very most."""
        if not self._host:
            return Answer(problem="no address")
        try:
            status, body = self._get("/health")
            health, reason = _health(status, body)
            status, body = self._get("/metrics")
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            return Answer(problem=_problem(error))
        if status != 200:
            return Answer(health, reason, problem=f"/metrics answers {status}")
        return Answer(health, reason, metrics=body.decode("utf-8", "replace"))

    def close(self) -> None:
        """Drop the connection; the next ``ask`` makes a new one."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
            self._connection = None

    def _get(self, path: str) -> tuple[int, bytes]:
        reused = self._connection is not None
        try:
            return self._exchange(path)
        except (ConnectionError, HTTPException):
            self.close()
            if not reused:
                raise
            return self._exchange(path)  # an idle connection that the daemon had closed meanwhile

    def _exchange(self, path: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = HTTPConnection(str(self._host), self._port, timeout=self._timeout)
        self._connection.request("GET", path, headers={"Accept": "*/*"})
        with self._connection.getresponse() as response:
            return response.status, _read(response, time.monotonic() + self._timeout)


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """The body, piece by piece, so that neither its length nor a slow drip can hold us."""
    chunks: list[bytes] = []
    length = 0
    while chunk := response.read1(65536):
        chunks.append(chunk)
        length += len(chunk)
        if length > MAX_BYTES:
            raise ValueError("answer too large")
        if time.monotonic() > deadline:
            raise TimeoutError
    response.read()  # lets http.client see the end of the message, so that the connection can be used again
    return b"".join(chunks)


def _health(status: int, body: bytes) -> tuple[str, str]:
    """The daemon's word and reason; anything but a JSON object counts by its status alone."""
    word, reason = ("ok", "") if status == 200 else ("unhealthy", f"/health answers {status}")
    with suppress(ValueError):
        data = json.loads(body)
        if isinstance(data, dict):
            if status != 200:
                word = str(data.get("status") or word)
            reason = str(data.get("reason") or reason)
    return word, reason


def _problem(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__

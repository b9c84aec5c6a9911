"""The HTTP side of execution: one connection pool to all engines, and what its failures mean.

Knows nothing of queues or of the client's connection.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import aiohttp

from sage.llm.control_plane.upstream import Upstream

CONNECT_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 4.0  # below uvicorn's default of 5, so that we close idle connections first
_LARGE_BODY = 1024 * 1024


class UpstreamUnreachable(Exception):  # noqa: N818 - a state of the world, handled by its name
    """No answer began. `sent`: the request may have reached the engine before it went away."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


@dataclass(slots=True)
class HttpExecutionCoordinator:
    """Sends requests to engines. `idle_seconds`: the longest silence of an engine inside an answer.

    `engine_key` goes to LLM engines, and to nobody else.
    """

    idle_seconds: float = 300.0
    engine_key: str = field(default="", repr=False)
    _session: aiohttp.ClientSession | None = field(default=None)

    async def start(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self.idle_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            auto_decompress=False,
            trust_env=False,
        )

    async def stop(self) -> None:
        """Close the connection pool and what is still open in it."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the connection pool."""
        assert self._session is not None, "start() comes first"
        return self._session

    def credentials(self, upstream: Upstream) -> dict[str, str]:
        """Return the headers by which an engine knows us."""
        if not self.engine_key or upstream.kind != "llm":
            return {}
        return {"Authorization": f"Bearer {self.engine_key}"}

    async def open(self, upstream: Upstream, path: str, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        """Return the engine's answer with its body still to be read; the caller must close it.

        Raises UpstreamUnreachable where no answer began. A connection that the engine had closed while it idled is
        replaced once, silently.
        """
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id, **self.credentials(upstream)}
        for last in (False, True):
            try:
                data = body if len(body) < _LARGE_BODY else io.BytesIO(body)  # aiohttp sends a file piece by piece
                return await self.session.post(upstream.url + path, data=data, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectorError as error:
                raise UpstreamUnreachable(_words(error.os_error), sent=False) from error
            except TimeoutError as error:
                sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
                raise UpstreamUnreachable("it did not answer in time", sent=sent) from error
            except (aiohttp.ServerDisconnectedError, ConnectionResetError, aiohttp.ClientOSError) as error:
                if last:
                    raise UpstreamUnreachable("it closed the connection without an answer", sent=True) from error
            except aiohttp.ClientError as error:
                raise UpstreamUnreachable(f"its answer is no HTTP ({type(error).__name__})", sent=True) from error
        raise AssertionError("unreachable")


def _words(error: OSError) -> str:
    """Return an operating system error for people."""
    return (error.strerror or str(error)).lower()

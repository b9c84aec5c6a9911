"""When the client tries again: only while nothing of an answer has arrived, and only where that is likely to help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_REFUSALS = 2
LONGEST_PAUSE = 10.0
RETURN_SECONDS = 20.0
"""How long to wait for a gateway that its supervisor is about to have back."""

_RETRIED = frozenset({429, 502, 503, 504})
_RETURNING = frozenset({"starting", "ready", "unhealthy", "backing-off", "dead"})
_FIRST_PAUSE = 0.25


@dataclass(slots=True)
class Attempts:
    """The attempts of one request to the gateway at `base_url`. `clock` is a parameter so that tests can move it."""

    base_url: str
    clock: Callable[[], float] = time.monotonic
    refusals: int = 0
    failing_since: float | None = None

    def after_refusal(self, response: httpx.Response, body: bytes) -> float | None:
        """Return how long to wait before a refused request is sent again; None where it should not be.

        `Retry-After` is honoured. A gateway that says that there is no engine has waited for one already.
        """
        if response.status_code not in _RETRIED or self.refusals >= MAX_REFUSALS:
            return None
        if response.status_code == 503 and b'"engine_unavailable"' in body:
            return None
        given = response.headers.get("retry-after", "")
        seconds = float(given) if given.replace(".", "", 1).isdigit() else _FIRST_PAUSE * 2.0**self.refusals
        self.refusals += 1
        return seconds if seconds <= LONGEST_PAUSE else None

    def after_failure(self, error: httpx.TransportError) -> float | None:
        """Return how long to wait before a request that got no answer is sent again; None where it should not be.

        Only a local gateway under a living supervisor is waited for, for at most `RETURN_SECONDS`.
        """
        import httpx

        if not isinstance(error, httpx.ConnectError | httpx.ReadError | httpx.RemoteProtocolError):
            return None
        now = self.clock()
        self.failing_since = self.failing_since if self.failing_since is not None else now
        if now - self.failing_since >= RETURN_SECONDS or not gateway_returns(self.base_url):
            return None
        return _FIRST_PAUSE


def gateway_returns(base_url: str) -> bool:
    """Whether this is the local stack's gateway, and its supervisor lives and has not given it up."""
    from sage.common.stack import read_status

    stack = read_status()
    ours = [one for one in stack.daemons if one.kind == "gateway" and same_place(one.url, base_url)]
    return stack.supervisor_alive and any(one.state in _RETURNING for one in ours)


def same_place(url: str, base_url: str) -> bool:
    """Whether two addresses are the same gateway; localhost and 127.0.0.1 are one."""
    places = [one.removesuffix("/v1").rstrip("/").replace("//localhost:", "//127.0.0.1:") for one in (url, base_url)]
    return places[0] == places[1]

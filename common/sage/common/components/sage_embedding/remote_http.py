"""One JSON request to a service: sent again where that is likely to help, and refusals put into words."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError, ModelError, NotRunningError, SageError, UpstreamError

if TYPE_CHECKING:
    import httpx

LONGEST_PAUSE = 60.0
"""Seconds. A service that asks for a longer pause is reported instead of waited for."""

_FIRST_PAUSE = 0.5
_LONGEST_BACKOFF = 8.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and after which pauses a request is sent again. The clocks are parameters so that tests hold them."""

    count: int = 4
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, retry_after: str | None) -> float | None:
        """Return the seconds to wait after failure number `attempt` (from 0); None: give up.

        The service's Retry-After counts where it sends one; else exponential back-off, between half and all of
        0.5 s, 1 s, 2 s ... 8 s.
        """
        if attempt >= self.count:
            return None
        asked = _seconds(retry_after, self.now())
        if asked is not None:
            return asked if asked <= LONGEST_PAUSE else None
        longest: float = min(_LONGEST_BACKOFF, _FIRST_PAUSE * 2.0**attempt)
        return longest * (0.5 + 0.5 * self.jitter())


@dataclass(frozen=True, slots=True)
class Service:
    """Whom a request goes to, for messages: its name, the variable of its key, and what starts it when it is local."""

    name: str
    model: str
    key_hint: str
    local: bool = False


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Return a Retry-After header (seconds or an HTTP date, RFC 9110 10.2.3) in seconds; None where it says nothing."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)


def post(
    client: httpx.Client,
    url: str,
    body: bytes,
    headers: Callable[[], Mapping[str, str]],
    service: Service,
    retries: Retries,
) -> dict[str, Any]:
    """Return the JSON object of an answer; `headers` is asked for every attempt (a signature holds for minutes).

    Raises ConfigError for a refused key, ModelError for an unknown model, NotRunningError where a local service does
    not listen, UpstreamError for the rest.
    """
    import httpx

    attempt = 0
    while True:
        try:
            response = client.post(url, content=body, headers=dict(headers()))
        except httpx.TransportError as error:
            refused = service.local and isinstance(error, httpx.ConnectError)
            pause = None if refused else retries.pause(attempt, None)
            if pause is None:
                raise _unreached(service, url, error) from error
        else:
            if response.status_code == httpx.codes.OK:
                return _object(service, response)
            again = response.status_code in _RETRIED and _code(response) != "insufficient_quota"
            pause = retries.pause(attempt, response.headers.get("retry-after")) if again else None
            if pause is None:
                raise _refusal(service, response)
        retries.sleep(pause)
        attempt += 1


def _object(service: Service, response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer; raises UpstreamError for anything else."""
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UpstreamError(f"{service.name} sent an answer that is no JSON object", cause=response.text[:200])
    return value


def _error(response: httpx.Response) -> Mapping[str, Any]:
    """Return the error object of a refusal in any of the shapes that the services use."""
    try:
        value = response.json()
    except ValueError:
        return {"message": response.text[:300]}
    inner = value.get("error", value) if isinstance(value, dict) else value
    return inner if isinstance(inner, dict) else {"message": str(inner)}


def _code(response: httpx.Response) -> str:
    """Return the error code of a refusal, empty where it has none."""
    return str(_error(response).get("code") or "")


def _reason(response: httpx.Response) -> str:
    """Return why a request was refused."""
    error = _error(response)
    for name in ("message", "Message", "detail", "title", "msg"):
        if error.get(name):
            return str(error[name])[:300]
    return f"status {response.status_code} without a reason"


def _refusal(service: Service, response: httpx.Response) -> SageError:
    """Return the error that a refusal stands for."""
    status, reason = response.status_code, _reason(response)
    details: dict[str, object] = {"status": status, "retry_after": response.headers.get("retry-after", "")}
    if status in (401, 403):
        return ConfigError(f"{service.name} refused the key", cause=reason, hint=service.key_hint, details=details)
    if status == 404:
        hint = f"ollama pull {service.model}" if service.local else "model=NAME  or  base_url=URL"
        return ModelError(f"{service.name} does not serve {service.model}", cause=reason, hint=hint, details=details)
    if 300 <= status < 400:
        reason = "It redirects elsewhere; keys and texts are not sent after a redirect."
    busy = status in _RETRIED
    return UpstreamError(
        f"{service.name} is busy or down ({status})" if busy else f"{service.name} refused the request ({status})",
        cause=reason,
        hint="Try again later" if busy else "",
        details=details,
    )


def _unreached(service: Service, url: str, error: Exception) -> SageError:
    """Return the error for a service that gave no answer."""
    cause = f"{url}: {str(error) or type(error).__name__}"
    if service.local:
        return NotRunningError(f"{service.name} does not answer", cause=cause, hint="ollama serve")
    return UpstreamError(f"{service.name} does not answer", cause=cause, hint="Check the network, or base_url=URL")

"""What the client says and hears: payloads, answers, errors, retries.

No I/O, so that the synchronous and the asynchronous side share it.
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sage.common.errors import ConfigError, ModelError, NotRunningError, SageError, UpstreamError

if TYPE_CHECKING:
    import httpx

Messages = str | Sequence[Mapping[str, Any]]

SERVE_HINT = "Start the stack:  sage llm serve"
EMBED_TEXTS = 512  # texts of one embedding request
EMBED_CHARACTERS = 1_000_000
_TRY_LATER = frozenset({429, 502, 503, 504})


def resolve_base_url(control_plane_url: str | None) -> str:
    """Return the gateway's address ending in /v1: the argument, else what the settings say (SPEC P4).

    Raises ConfigError for something that is no http(s) URL.
    """
    url = control_plane_url
    if url is None:
        from sage.common.config.settings import Settings

        url = Settings.load().text("base_url") or ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{url!r} is no address of a gateway",
            cause="It must look like http://HOST:PORT or http://HOST:PORT/v1.",
            hint="Leave it out to use the local gateway, or correct SAGE_UNIFIED_BASE_URL.",
        )
    url = url.rstrip("/")
    return url if url.endswith("/v1") else url + "/v1"


def chat_payload(
    messages: Messages, model: str | None, parameters: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """Return the body of a chat request; a bare string is one user message. Raises ConfigError for no messages."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not messages:
        raise ConfigError("A chat needs at least one message", hint='client.chat([{"role": "user", "content": "..."}])')
    return _payload({"messages": [dict(message) for message in messages]}, model, parameters, stream=stream)


def generate_payload(prompt: str, model: str | None, parameters: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Return the body of a completion request."""
    return _payload({"prompt": prompt}, model, parameters, stream=stream)


def _payload(body: dict[str, Any], model: str | None, parameters: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Return a body with its model and its parameters; parameters that are None are left to the engine."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"model": model or "default", **body, **given, **({"stream": True} if stream else {})}


def embed_payloads(texts: str | Sequence[str], model: str | None) -> list[dict[str, Any]]:
    """Return the bodies of embedding requests for texts, in order; one string counts as a list of one.

    Raises TypeError where an item is no string.
    """
    texts = [texts] if isinstance(texts, str) else texts
    payloads: list[dict[str, Any]] = []
    part: list[str] = []
    size = 0
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"expected texts, got {type(text).__name__}")
        if part and (len(part) >= EMBED_TEXTS or size + len(text) > EMBED_CHARACTERS):
            payloads.append(_embed_payload(part, model))
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        payloads.append(_embed_payload(part, model))
    return payloads


def _embed_payload(texts: list[str], model: str | None) -> dict[str, Any]:
    """Return the body of one embedding request; base64 is a third of the bytes of decimal numbers."""
    return {"model": model or "default", "input": texts, "encoding_format": "base64"}


def key_header(key: str | None) -> dict[str, str]:
    """Return the header that tells repeated requests from new ones (IETF draft-ietf-httpapi-idempotency-key-header)."""
    return {} if key is None else {"Idempotency-Key": key}


def part_keys(key: str | None, parts: int) -> list[str | None]:
    """Return the idempotency key of each of several requests: a key stands for one request only."""
    return [key] if parts == 1 else [key and f"{key}.{number}" for number in range(1, parts + 1)]


def read_chat(answer: Mapping[str, Any]) -> str:
    """Return the text of a chat answer; empty where the model called a tool instead."""
    return _choice(answer).get("message", {}).get("content") or ""


def read_generate(answer: Mapping[str, Any]) -> str:
    """Return the text of a completion."""
    return _choice(answer).get("text") or ""


def read_vectors(answer: Mapping[str, Any], count: int) -> list[list[float]]:
    """Return the vectors of an embedding answer, in the order of the inputs.

    Raises UpstreamError unless there is one for each of `count` inputs.
    """
    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        vectors = [_vector(item["embedding"]) for item in items]
        indices = [item["index"] for item in items]
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected(repr(error)) from error
    if indices != list(range(count)):
        raise _unexpected(f"{count} texts got {len(vectors)} vectors, or some of them twice")
    return vectors


def _vector(value: str | list[float]) -> list[float]:
    """Return a vector from base64 (little-endian float32) or from plain numbers."""
    if not isinstance(value, str):
        return value
    numbers = array("f")
    numbers.frombytes(b64decode(value, validate=True))
    if array("H", [1]).tobytes()[0] == 0:  # a big-endian machine
        numbers.byteswap()
    return numbers.tolist()


def read_event(line: str, *, chat: bool) -> str | None:
    """Return the text of a line of an event stream: "" where it carries none, None at the end.

    Raises UpstreamError for an error event.
    """
    if not line.startswith("data:"):
        return ""
    data = line[5:].strip()
    if data == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except ValueError as error:
        raise _unexpected(f"an event is no JSON: {data[:80]}") from error
    if isinstance(event, dict) and event.get("error"):
        raise _from_error(event["error"], 0, "")
    choices = event.get("choices") if isinstance(event, dict) else None
    if not choices:
        return ""
    first = choices[0]
    return (first.get("delta", {}).get("content") if chat else first.get("text")) or ""


def broken_stream() -> UpstreamError:
    """Return the error for a stream that ended without [DONE]."""
    return UpstreamError(
        "The answer broke off", cause="The connection ended before the model had finished.", hint="sage llm status"
    )


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first choice of an answer."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _unexpected("it has no choices")
    return choices[0]


def _unexpected(cause: str) -> UpstreamError:
    """Return the error for an answer that is not OpenAI's."""
    return UpstreamError("The gateway's answer cannot be read", cause=cause, hint="sage llm status")


def json_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer that was read; raises what `error_of` returns for a refusal."""
    if response.status_code >= 400:
        raise error_of(response)
    try:
        value = response.json()
    except ValueError as error:
        raise _unexpected("it is no JSON") from error
    if not isinstance(value, dict):
        raise _unexpected("it is no JSON object")
    return value


def error_of(response: httpx.Response) -> SageError:
    """Return the error that an answer with status >= 400 stands for; its body must have been read."""
    status = response.status_code
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": response.text[:200] or f"status {status} without a reason"}
    request_id = response.headers.get("x-sage-request-id", "")
    return _from_error(error if isinstance(error, dict) else {"message": str(error)}, status, request_id)


def _from_error(error: Mapping[str, Any], status: int, request_id: str) -> SageError:
    """Return the error for OpenAI's error object."""
    message, code = str(error.get("message", "no reason given")), str(error.get("code") or "")
    details = {"status": status, "code": code, "request_id": request_id}
    if code == "engine_unavailable":
        return NotRunningError(message.split(". Start one")[0], hint=SERVE_HINT, details=details)
    if code == "model_not_found":
        return ModelError(message, hint="See the models that are served:  sage llm status", details=details)
    title = {429: "The gateway is busy", 0: "The answer broke off"}.get(status, f"The request was refused ({status})")
    hint = "Try again in a moment" if status in _TRY_LATER else "sage llm logs" if status >= 500 or status == 0 else ""
    return UpstreamError(title, cause=message, hint=hint, details=details)


def transport_error(error: httpx.TransportError, base_url: str, timeout: float) -> SageError:
    """Return the error for a request that got no answer."""
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NotRunningError(
            f"No gateway answers at {base_url}", cause=str(error) or "no connection", hint=SERVE_HINT
        )
    if isinstance(error, httpx.TimeoutException):
        return UpstreamError(
            f"The gateway did not answer within {timeout:g} s",
            cause=str(error) or type(error).__name__,
            hint="UnifiedInferenceClient.create(timeout=...) waits longer;  sage llm status  shows the load",
        )
    return UpstreamError("The connection to the gateway broke", cause=str(error), hint="sage llm status")


def read_status(base_url: str, health: Mapping[str, Any] | None, models: Sequence[str]) -> dict[str, Any]:
    """Return what `get_status` tells, from the gateway's /health (None where it has none) and its models."""
    engines = [engine for engine in (health or {}).get("engines", ()) if isinstance(engine, dict)]
    ready = {engine.get("kind") for engine in engines if engine.get("state") == "ready"}
    plain = health is None or "engines" not in health  # some other OpenAI-compatible server
    return {
        "gateway_available": True,
        "llm_available": bool(models) if plain else "llm" in ready,
        "embedding_available": bool(models) if plain else "embedding" in ready,
        "models": list(models),
        "engines": engines,
        "base_url": base_url,
        "error": "",
        "hint": "" if plain or "llm" in ready else SERVE_HINT,
    }


def absent_status(base_url: str, error: SageError) -> dict[str, Any]:
    """Return what `get_status` tells where no gateway answers."""
    return {
        "gateway_available": False,
        "llm_available": False,
        "embedding_available": False,
        "models": [],
        "engines": [],
        "base_url": base_url,
        "error": str(error),
        "hint": error.hint,
    }


def model_ids(answer: Mapping[str, Any]) -> list[str]:
    """Return the ids of a /v1/models answer."""
    return [str(card["id"]) for card in answer.get("data", ()) if isinstance(card, dict) and "id" in card]


def deltas(lines: Iterator[str], *, chat: bool) -> Iterator[str]:
    """Yield the pieces of text of an event stream; raises UpstreamError where it breaks off."""
    for line in lines:
        piece = read_event(line, chat=chat)
        if piece is None:
            return
        if piece:
            yield piece
    raise broken_stream()

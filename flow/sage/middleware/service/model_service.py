"""`ModelService`: chat and embeddings through a gateway, with retries."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from sage.common.errors import ConfigError, NotRunningError, UpstreamError
from sage.core.api.function.call_origin import idempotency_key
from sage.core.api.units import parse_duration

if TYPE_CHECKING:
    from sage.llm import UnifiedInferenceClient

__all__ = ["ModelService"]

R = TypeVar("R")
Messages = str | Sequence[Mapping[str, Any]]
_POLICY = ("max_attempts", "delay", "max_delay")


class ModelService:
    """One client of a gateway for all tasks; methods may be called from any thread and given to operators.

    `endpoint` is `host:port` or a URL (default: the local gateway, as UnifiedInferenceClient finds it). `timeout`: a
    number of milliseconds, or text such as "30s". `retry_policy`: `max_attempts` (3), `delay` (100 ms, doubled each
    time, with jitter) and `max_delay` (5 s); tried again is only what found no gateway or broke off.

    A chat for a record of a pipeline carries an `Idempotency-Key` header made of job, operator, record position and
    request: repeated after a failure of the job, it has the same key, so that a provider that knows it asks no second
    price. Registered as a service, calls of `embedding` are collected into few requests.
    """

    sends_idempotency_keys = True
    batch_methods: ClassVar[dict[str, str]] = {"embedding": "embedding_batch"}

    def __init__(
        self,
        endpoint: str | None = None,
        timeout: float | str = 60_000,
        retry_policy: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        embedding_model: str | None = None,
    ) -> None:
        policy = dict(retry_policy or {})
        unknown = sorted(set(policy) - set(_POLICY))
        try:
            self._timeout = parse_duration(timeout)
            self._attempts = int(policy.get("max_attempts", 3))
            self._delay = parse_duration(policy.get("delay", 100))
            self._max_delay = parse_duration(policy.get("max_delay", "5s"))
        except (TypeError, ValueError) as error:
            raise ConfigError("ModelService has a wrong setting", cause=str(error)) from error
        if unknown or self._attempts < 1:
            raise ConfigError(
                "ModelService has a wrong retry_policy",
                cause=f"unknown: {', '.join(unknown)}" if unknown else "max_attempts must be at least 1",
                hint=f"known: {', '.join(_POLICY)}",
            )
        self._endpoint = endpoint if endpoint is None or "://" in endpoint else f"http://{endpoint}"
        self._model = model
        self._embedding_model = embedding_model
        self._client: UnifiedInferenceClient | None = None
        self._lock = threading.Lock()

    @overload
    def embedding(self, text: str) -> list[float]: ...  # type: ignore[overload-overlap]
    @overload
    def embedding(self, text: Sequence[str]) -> list[list[float]]: ...
    def embedding(self, text: str | Sequence[str]) -> list[float] | list[list[float]]:
        """The vector of a text, or the vectors of several in one request.

        Raises NotRunningError, ModelError or UpstreamError as UnifiedInferenceClient does.
        """
        texts = [text] if isinstance(text, str) else list(text)
        vectors = self._retried(lambda client: client.embed(texts))
        return vectors[0] if isinstance(text, str) else vectors

    def embedding_batch(self, texts: Sequence[str | Sequence[str]]) -> list[list[float] | list[list[float]]]:
        """What `embedding` gives for each of these, in one request."""
        several = [[text] if isinstance(text, str) else list(text) for text in texts]
        vectors = iter(self._retried(lambda client: client.embed([text for part in several for text in part])))
        parts = [list(islice(vectors, len(part))) for part in several]
        return [part[0] if isinstance(text, str) else part for text, part in zip(texts, parts, strict=True)]

    def chat(self, messages: Messages, **parameters: Any) -> str:
        """The answer to a question (a string) or a conversation; parameters (temperature, max_tokens, …) go along."""
        conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        request = json.dumps([conversation, parameters], sort_keys=True, default=repr).encode()
        key = idempotency_key(request)
        return self._retried(lambda client: client.chat(conversation, idempotency_key=key, **parameters))

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _retried(self, call: Callable[[UnifiedInferenceClient], R]) -> R:
        delay = self._delay
        for attempt in range(1, self._attempts + 1):
            try:
                return call(self._connected())
            except (NotRunningError, UpstreamError):
                if attempt == self._attempts:
                    raise
            time.sleep(min(delay, self._max_delay) * random.uniform(0.5, 1.0))
            delay *= 2
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> UnifiedInferenceClient:
        with self._lock:
            if self._client is None:
                from sage.llm import UnifiedInferenceClient

                self._client = UnifiedInferenceClient.create(
                    self._endpoint,
                    default_llm_model=self._model,
                    default_embedding_model=self._embedding_model,
                    timeout=self._timeout,
                )
            return self._client

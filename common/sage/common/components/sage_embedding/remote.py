"""Embeddings from a service: batches, keys, retries and checked answers for every method of `providers.PROVIDERS`."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from sage.common.components.sage_embedding.base import BaseEmbedding, check_texts
from sage.common.components.sage_embedding.providers import PROVIDERS, Call, Provider
from sage.common.components.sage_embedding.remote_http import Retries, Service, post
from sage.common.errors import ConfigError, SageError, UpstreamError

if TYPE_CHECKING:
    import httpx

_BATCH_BYTES = 300_000
"""UTF-8 bytes of a request's texts; a token is at least a byte, so this stays under OpenAI's 300,000 tokens."""

_CONNECT_SECONDS = 10.0


class RemoteEmbedding(BaseEmbedding):
    """Vectors from a service, brought to length 1.

    Any number of texts is sent in as many requests as the service's limits ask for. A text without content is never
    sent: its vector is all zeros. The key is the argument's, else that of the provider's own environment variable; the
    variable's key goes to the provider's own address only, so a `base_url` of somebody else gets no key unless it is
    given as `api_key`. Redirects are not followed. Close the embedder, or use it in a `with` block.

    Raises ConfigError for a missing or refused key and for wrong options, ModelError for an unknown model,
    UpstreamError or NotRunningError where the service fails.
    """

    def __init__(
        self,
        method: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        batch_size: int | None = None,
        timeout: float = 60.0,
        retries: Retries | int = 4,
        **parameters: Any,
    ) -> None:
        provider = PROVIDERS[method]
        self._provider = provider
        self._call = Call(model or provider.model, _whole(dimensions, "dimensions"), _checked(provider, parameters))
        self._base_url = find_base_url(provider, base_url)
        self._key = self._find_key(api_key)
        self._batch = min(self._limit(), _whole(batch_size, "batch_size") or provider.batch)
        self._timeout = timeout
        self._retries = retries if isinstance(retries, Retries) else Retries(retries)
        self._dim = self._call.dimensions or provider.dimensions.get(self._call.model)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    @property
    def method_name(self) -> str:
        """Return the method's name."""
        return self._provider.method

    @property
    def model_name(self) -> str:
        """Return the model's name as the service knows it."""
        return self._call.model

    def get_dim(self) -> int:
        """Return the length of a vector; of a model that is not known, the service is asked once."""
        if self._dim is None:
            self.embed_array(["dimension"])
        assert self._dim is not None
        return self._dim

    def get_model_info(self) -> dict[str, Any]:
        """Return method, model, dimension (None while it is not known) and base_url; never the key."""
        return {
            "method": self.method_name,
            "model": self.model_name,
            "dimension": self._dim,
            "base_url": self._base_url,
        }

    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors as an array of shape (len(texts), get_dim()), float32."""
        check_texts(texts)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        parts = [self._embed_part([texts[row] for row in part]) for part in self._parts(texts, rows)]
        if not parts and not texts:
            return np.zeros((0, self._dim or 0), dtype=np.float32)
        vectors = np.zeros((len(texts), self.get_dim()), dtype=np.float32)
        if parts:
            vectors[rows] = np.concatenate(parts)
        return vectors

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections and key behind: where it arrives, the key is looked up in the environment again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_client", "_key")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._client = threading.Lock(), None
        self._key = self._find_key(None)

    # -- what differs between services --------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return how many texts a request may hold."""
        return self._provider.batch

    def _find_key(self, api_key: str | None) -> str:
        """Return the key, empty where none is needed; raises ConfigError where one is missing."""
        return find_key(self._provider, self._base_url, api_key)

    def _headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers of one attempt."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | {"Authorization": f"Bearer {self._key}"} if self._key else headers

    # -- requests -----------------------------------------------------------------------------------------------------

    def _parts(self, texts: Sequence[str], rows: Sequence[int]) -> Iterator[list[int]]:
        """Yield the rows of one request after another; a text that is too large by itself goes alone."""
        part: list[int] = []
        size = 0
        for row in rows:
            length = len(texts[row].encode("utf-8", "replace"))
            if part and (len(part) >= self._batch or size + length > _BATCH_BYTES):
                yield part
                part, size = [], 0
            part.append(row)
            size += length
        if part:
            yield part

    def _embed_part(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of the texts of one request, each of length 1."""
        provider = self._provider
        url = self._base_url + provider.path.format(model=quote(self._call.model, safe=""))
        body = json.dumps(provider.body(self._call, texts), ensure_ascii=False).encode("utf-8", "replace")
        service = Service(provider.display_name, self._call.model, key_hint(provider), provider.local)
        answer = post(self._http(), url, body, lambda: self._headers(url, body), service, self._retries)
        try:
            vectors = np.asarray(provider.vectors(answer), dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreadable(f"{type(error).__name__}: {error}") from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise self._unreadable(
                f"{len(texts)} texts got an array of shape {vectors.shape}, or one that is not finite"
            )
        if self._dim not in (None, vectors.shape[1]):
            raise self._unreadable(f"vectors of {vectors.shape[1]} numbers came, {self._dim} were expected")
        self._dim = int(vectors.shape[1])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return unit

    def _http(self) -> httpx.Client:
        """Return the connections, which end with the embedder."""
        with self._lock:
            if self._client is None:
                import httpx

                local = urlsplit(self._base_url).hostname in ("localhost", "127.0.0.1", "::1")
                timeout = httpx.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout))
                verify = self._base_url.startswith("https")
                self._client = httpx.Client(timeout=timeout, verify=verify, trust_env=not local)
                weakref.finalize(self, self._client.close)
            return self._client

    def _unreadable(self, cause: str) -> UpstreamError:
        """Return the error for an answer that does not fit the request."""
        return UpstreamError(f"{self._provider.display_name} sent an answer that does not fit", cause=cause)


def find_base_url(provider: Provider, base_url: str | None) -> str:
    """Return the address without a slash at its end: the argument's, the environment's, or the provider's own.

    Raises ConfigError for something that is no http(s) URL.
    """
    told = base_url or next((value for name in provider.base_variables if (value := os.environ.get(name))), None)
    url = (told or provider.base_url).strip().rstrip("/")
    if provider.local and "://" not in url:  # OLLAMA_HOST may be a bare host:port, and the address it listens on
        url = "http://" + url
        url = url.replace("//0.0.0.0", "//127.0.0.1", 1)
        url = url if urlsplit(url).port else f"{url}:{urlsplit(provider.base_url).port}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ConfigError(
            f"{url.rpartition('@')[2]!r} is no address of an embedding service",
            cause="It must look like https://HOST/PATH, without a user name or a query.",
            hint=f'EmbeddingFactory.create("{provider.method}", base_url="{provider.base_url}")',
        )
    return url


def find_key(provider: Provider, base_url: str, api_key: str | None) -> str:
    """Return the key for an address: the argument, or the provider's variable where the address is the provider's.

    Empty where a foreign address or a local service gets none. Raises ConfigError where the provider wants a key and
    none is there.
    """
    if api_key is not None and api_key.strip():
        return api_key.strip()
    if not provider.key_variables or not is_own_address(provider, base_url):
        return ""
    key = key_of_environment(provider)
    if key:
        return key
    raise missing_key(provider)


def is_own_address(provider: Provider, base_url: str) -> bool:
    """Whether an address is the provider's own: the same host, over TLS."""
    parts, own = urlsplit(base_url), urlsplit(provider.base_url)
    return parts.scheme == "https" and parts.hostname == own.hostname and parts.port in (None, 443)


def key_of_environment(provider: Provider) -> str:
    """Return the key in the provider's own variable, empty where there is none."""
    return next((key for name in provider.key_variables if (key := os.environ.get(name, "").strip())), "")


def key_hint(provider: Provider) -> str:
    """Return how to give a key."""
    variable = provider.key_variables[0] if provider.key_variables else ""
    return f"export {variable}=...   or   api_key=..." if variable else "api_key=..."


def missing_key(provider: Provider) -> SageError:
    """Return the error that says which key is missing."""
    return ConfigError(
        f"The embedding method {provider.method!r} needs a key of {provider.display_name}",
        cause=f"Neither api_key nor {' nor '.join(provider.key_variables)} is set.",
        hint=key_hint(provider),
        details={"missing": "key"},
    )


def served_models(base_url: str, seconds: float = 1.0) -> list[str] | None:
    """Return the models that an Ollama server has; None where none answers within `seconds`."""
    import httpx

    try:
        answer = httpx.get(base_url + "/api/tags", timeout=seconds, trust_env=False, verify=base_url[:5] == "https")
        models = answer.raise_for_status().json()["models"]
        return [str(model["name"]) for model in models]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _whole(value: object, name: str) -> int | None:
    """Return a whole number above 0, or None; raises ConfigError for anything else."""
    if value is None or (type(value) is int and value > 0):
        return value
    raise ConfigError(f"{name}={value!r} is no whole number above 0")


def _checked(provider: Provider, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's own parameters with its defaults.

    Raises TypeError for one that the method does not take, ConfigError for a value that it does not know.
    """
    for name, value in parameters.items():
        if name not in provider.parameters:
            raise TypeError(f"{provider.method} got an unexpected keyword argument {name!r}")
        known = provider.parameters[name]
        if known and value not in known:
            raise ConfigError(
                f"{name}={value!r} is not known to {provider.display_name}",
                cause=f"Known: {', '.join(str(one) for one in known)}.",
                hint=f"{name}={known[0]!r}",
            )
    return {**provider.defaults, **parameters}

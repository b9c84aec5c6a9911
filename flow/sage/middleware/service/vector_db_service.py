"""`VectorDBService`: the nearest points of a collection in a Qdrant server, over its HTTP interface.

https://api.qdrant.tech/api-reference/search/query-points
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sage.common.errors import ConfigError, NotRunningError, UpstreamError
from sage.core.api.units import parse_duration

if TYPE_CHECKING:
    import httpx

__all__ = ["VectorDBService"]


class VectorDBService:
    """One client of a collection for all tasks; methods may be called from any thread and given to operators.

    `timeout`: a number of milliseconds, or text such as "30s". Nothing is connected before the first call.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6333,
        collection: str = "documents",
        *,
        top_k: int = 10,
        timeout: float | str = 30_000,
        api_key: str | None = None,
        https: bool = False,
    ) -> None:
        if not host or not collection or top_k < 1:
            raise ConfigError("VectorDBService needs a host, a collection, and a top_k of at least 1")
        try:
            self._timeout = parse_duration(timeout)
        except ValueError as error:
            raise ConfigError("VectorDBService has a wrong timeout", cause=str(error)) from error
        self._url = f"{'https' if https else 'http'}://{host}:{port}"
        self._collection = collection
        self._top_k = top_k
        self._api_key = api_key
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def retrieve(
        self, vector: Sequence[float], top_k: int | None = None, query_filter: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The nearest points, the best first: `{"id", "score", "payload"}` each. `query_filter` is Qdrant's.

        Raises NotRunningError when no server answers, UpstreamError for what it refuses.
        """
        body: dict[str, Any] = {
            "query": [float(value) for value in vector],
            "limit": self._top_k if top_k is None else top_k,
            "with_payload": True,
        }
        if query_filter is not None:
            body["filter"] = dict(query_filter)
        answer = self._post(f"/collections/{quote(self._collection, safe='')}/points/query", body)
        try:
            return [
                {"id": point["id"], "score": float(point["score"]), "payload": point.get("payload") or {}}
                for point in answer["result"]["points"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UpstreamError(f"{self._url} gave no points", cause=f"{answer!r:.200}") from error

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        import httpx

        try:
            answer = self._connected().post(path, json=body)
        except httpx.TransportError as error:
            raise NotRunningError(
                f"No vector database answers at {self._url}",
                cause=f"{type(error).__name__}: {error}",
                hint="start Qdrant, or give VectorDBService its host and port",
            ) from error
        if answer.status_code != 200:
            raise UpstreamError(
                f"{self._url} refused the query ({answer.status_code})", cause=answer.text[:200] or "no reason given"
            )
        try:
            return answer.json()
        except ValueError as error:
            raise UpstreamError(f"{self._url} gave no JSON", cause=answer.text[:200]) from error

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                import httpx

                headers = {} if self._api_key is None else {"api-key": self._api_key}
                self._client = httpx.Client(base_url=self._url, timeout=self._timeout, headers=headers)
            return self._client

"""What the embedding server counts."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from sage.llm.prometheus import new_registry, page


class EmbeddingMetrics:
    """Prometheus metrics of one server, in a registry of their own."""

    def __init__(self, queued_texts: Callable[[], int]) -> None:
        self._registry = to = new_registry()
        self._texts = Counter("sage_embedding_texts", "Texts embedded", registry=to)
        self._batches = Counter("sage_embedding_batches", "Batches computed", registry=to)
        self._sizes = Histogram(
            "sage_embedding_batch_size",
            "Texts in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=to,
        )
        self._requests = Counter("sage_embedding_requests", "Requests answered", ["route", "code"], registry=to)
        self._seconds = Histogram(
            "sage_embedding_request_seconds",
            "Time to answer /v1/embeddings",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=to,
        )
        queue = Gauge("sage_embedding_queue_depth", "Texts that wait for a batch", registry=to)
        queue.set_function(lambda: float(queued_texts()))

    def batch(self, texts: int, seconds: float) -> None:
        """Count a computed batch."""
        self._texts.inc(texts)
        self._batches.inc()
        self._sizes.observe(texts)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        if route == "/v1/embeddings":
            self._seconds.observe(seconds)

    def page(self) -> bytes:
        """Return the Prometheus text."""
        return page(self._registry)

"""What the gateway counts. Labels are routes, status codes and engine names: never what a user typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram

from sage.llm.control_plane.upstream import Upstream
from sage.llm.prometheus import new_registry, page

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class MetricsCollector:
    """Prometheus metrics of one gateway, in a registry of their own."""

    def __init__(self, upstreams: Callable[[], Iterable[Upstream]]) -> None:
        self._registry = to = new_registry()
        self._upstreams = upstreams
        self._requests = Counter("sage_gateway_requests", "Requests answered", ["route", "code"], registry=to)
        self._seconds = Histogram(
            "sage_gateway_request_seconds",
            "Time to the end of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=to,
        )
        self._ttft = Histogram(
            "sage_gateway_ttft_seconds", "Time to the first chunk of a stream", buckets=_SECONDS, registry=to
        )
        self._rejected = Counter("sage_gateway_rejected", "Requests refused because a queue was full", registry=to)
        self._retries = Counter("sage_gateway_retries", "Attempts repeated before the first byte", registry=to)
        self._broken = Counter("sage_gateway_broken_streams", "Streams whose engine died", registry=to)
        self._cancelled = Counter("sage_gateway_cancelled", "Requests whose client left", registry=to)
        Gauge("sage_gateway_inflight", "Requests that engines work on", registry=to).set_function(
            lambda: float(sum(upstream.queue.running for upstream in upstreams()))
        )
        Gauge("sage_gateway_queue_depth", "Requests that wait for an engine", registry=to).set_function(
            lambda: float(sum(upstream.queue.waiting for upstream in upstreams()))
        )
        self._up = Gauge("sage_gateway_upstream_up", "Whether an engine is ready", ["engine", "kind"], registry=to)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if status == 499:
            self._cancelled.inc()

    def first_chunk(self, seconds: float) -> None:
        """Note when a stream's first chunk came, counted from the request."""
        self._ttft.observe(seconds)

    def rejected(self) -> None:
        """Count a refusal because of a full queue."""
        self._rejected.inc()

    def retried(self) -> None:
        """Count a repeated attempt."""
        self._retries.inc()

    def stream_broke(self) -> None:
        """Count a stream whose engine died."""
        self._broken.inc()

    def page(self) -> bytes:
        """Return the Prometheus text."""
        self._up.clear()
        for upstream in self._upstreams():
            self._up.labels(upstream.name, upstream.kind).set(1.0 if upstream.condition == "ready" else 0.0)
        return page(self._registry)

"""Prometheus metrics of one engine server: the engine's counters when scraped, histograms of finished requests."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sagellm_core.llm_engine import LLMEngine
from sagellm_protocol.messages import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1)

_GAUGES = {
    "requests_running": "Requests in the running batch",
    "requests_waiting": "Requests that wait for room in the batch or the cache",
    "kv_cache_usage_ratio": "Share of KV cache blocks in use, 0 to 1",
    "prefix_hit_ratio": "Share of prompt tokens found in the prefix cache, 0 to 1",
}
_COUNTERS = {
    "prompt_tokens_total": "Prompt tokens taken in",
    "generation_tokens_total": "Tokens generated",
    "preemptions_total": "Sequences that gave their cache blocks back and were computed again",
    "step_failures_total": "Steps that failed",
}


class _EngineCollector(Collector):
    """Reads the engine's own counters at the moment of a scrape."""

    def __init__(self, engine: LLMEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        values = self._engine.get_metrics()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"sage_engine_{name}", text, value=values[name])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"sage_engine_{name}", text, value=values[name])


class ServerMetrics:
    """The registry behind `/metrics`."""

    def __init__(self, engine: LLMEngine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine))
        self._requests = Counter(
            "sage_engine_requests_total", "Requests by how they ended", ["finish_reason"], registry=self._registry
        )
        self._ttft = self._histogram("ttft_seconds", "From acceptance to the first token", _SECONDS)
        self._tpot = self._histogram("tpot_seconds", "Mean time between tokens after the first", _TOKEN_SECONDS)
        self._duration = self._histogram("request_seconds", "From acceptance to the last token", _SECONDS)

    def finished(self, finish_reason: str, metrics: Metrics | None, output_tokens: int) -> None:
        """Count a request; one that was refused or cancelled has no times."""
        self._requests.labels(finish_reason).inc()
        if metrics is None or not output_tokens:
            return
        self._ttft.observe(metrics.ttft_ms / 1000)
        self._duration.observe(metrics.timestamps.completed_at - metrics.timestamps.queued_at)
        if output_tokens > 1:
            self._tpot.observe(metrics.tpot_ms / 1000)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"sage_engine_{name}", text, buckets=buckets, registry=self._registry)

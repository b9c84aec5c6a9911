"""Prometheus metrics of one engine server: the engine's counters when scraped, histograms of finished requests.

Each has two names: ours, and the one that vLLM's dashboards and autoscalers ask for, with the label `model_name`.
"""

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
_VLLM_GAUGES = {
    "requests_running": "vllm:num_requests_running",
    "requests_waiting": "vllm:num_requests_waiting",
    "kv_cache_usage_ratio": "vllm:kv_cache_usage_perc",
}
_VLLM_COUNTERS = {
    "prompt_tokens_total": "vllm:prompt_tokens_total",
    "generation_tokens_total": "vllm:generation_tokens_total",
    "preemptions_total": "vllm:num_preemptions_total",
}
_VLLM_HISTOGRAMS = {
    "ttft_seconds": "vllm:time_to_first_token_seconds",
    "tpot_seconds": "vllm:time_per_output_token_seconds",
    "request_seconds": "vllm:e2e_request_latency_seconds",
}


class _EngineCollector(Collector):
    """Reads the engine's own counters at the moment of a scrape."""

    def __init__(self, engine: LLMEngine, model: str) -> None:
        self._engine = engine
        self._model = model

    def collect(self) -> Iterator[Metric]:
        values = self._engine.get_metrics()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"sage_engine_{name}", text, value=values[name])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"sage_engine_{name}", text, value=values[name])
        yield from self._as_vllm(values)

    def _as_vllm(self, values: dict[str, float]) -> Iterator[Metric]:
        for name, other in _VLLM_GAUGES.items():
            gauge = GaugeMetricFamily(other, _GAUGES[name], labels=["model_name"])
            gauge.add_metric([self._model], values[name])
            yield gauge
        stats = self._engine.stats
        counts = [(other, _COUNTERS[name], values[name]) for name, other in _VLLM_COUNTERS.items()]
        counts.append(("vllm:prefix_cache_queries_total", "Prompt tokens looked up", stats.prefix_lookup_tokens))
        counts.append(("vllm:prefix_cache_hits_total", "Prompt tokens found", stats.prefix_hit_tokens))
        for other, text, value in counts:
            counter = CounterMetricFamily(other, text, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter


class ServerMetrics:
    """The registry behind `/metrics`."""

    def __init__(self, engine: LLMEngine, model: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine, model))
        self._model = model
        self._requests = Counter(
            "sage_engine_requests_total", "Requests by how they ended", ["finish_reason"], registry=self._registry
        )
        self._successes = Counter(
            "vllm:request_success_total", "Requests that ended well", ["model_name", "finished_reason"],
            registry=self._registry,
        )  # fmt: skip
        self._ttft = self._histograms("ttft_seconds", "From acceptance to the first token", _SECONDS)
        self._tpot = self._histograms("tpot_seconds", "Mean time between tokens after the first", _TOKEN_SECONDS)
        self._duration = self._histograms("request_seconds", "From acceptance to the last token", _SECONDS)

    def finished(self, finish_reason: str, metrics: Metrics | None, output_tokens: int) -> None:
        """Count a request; one that was refused or cancelled has no times."""
        self._requests.labels(finish_reason).inc()
        if finish_reason in ("stop", "length"):
            self._successes.labels(self._model, finish_reason).inc()
        if metrics is None or not output_tokens:
            return
        _observe(self._ttft, metrics.ttft_ms / 1000)
        _observe(self._duration, metrics.timestamps.completed_at - metrics.timestamps.queued_at)
        if output_tokens > 1:
            _observe(self._tpot, metrics.tpot_ms / 1000)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def _histograms(self, name: str, text: str, buckets: tuple[float, ...]) -> tuple[Histogram, Histogram]:
        ours = Histogram(f"sage_engine_{name}", text, buckets=buckets, registry=self._registry)
        other = Histogram(
            _VLLM_HISTOGRAMS[name], text, ["model_name"], buckets=buckets, registry=self._registry
        )  # fmt: skip
        return ours, other.labels(self._model)


def _observe(histograms: tuple[Histogram, Histogram], value: float) -> None:
    for histogram in histograms:
        histogram.observe(value)

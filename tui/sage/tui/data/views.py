"""From a daemon's meter to what a panel shows: the one place that knows the metric names."""

from __future__ import annotations

from collections.abc import Callable

from sage.tui.data.meter import Labels, Meter
from sage.tui.data.model import EmbeddingView, EngineView, Freshness, GatewayView, RouteView

__all__ = ["TRACKED", "embedding_view", "engine_view", "gateway_view"]

Histories = dict[str, tuple[float, ...]]

_PROBES = frozenset({"/health", "/metrics"})


def _is_work(labels: Labels) -> bool:
    """Whether a request was somebody's work rather than a look at the gateway (ours among them)."""
    return labels.get("route") not in _PROBES


def _is_error(labels: Labels) -> bool:
    code = labels.get("code", "")
    return _is_work(labels) and (code.startswith("5") or code == "429")


TRACKED: dict[str, dict[str, Callable[[Meter], float | None]]] = {
    "llm": {
        "tokens": lambda meter: meter.rate("sage_engine_generation_tokens_total"),
        "kv": lambda meter: meter.value("sage_engine_kv_cache_usage_ratio"),
    },
    "gateway": {
        "rate": lambda meter: meter.rate("sage_gateway_requests_total", _is_work),
        "latency": lambda meter: meter.quantiles("sage_gateway_request_seconds", _is_work).p95,
    },
    "embedding": {"texts": lambda meter: meter.rate("sage_embedding_texts_total")},
}
"""The numbers of each kind of daemon that keep a recent past for sparklines, and how each is read."""


def engine_view(name: str, model: str, state: str, meter: Meter, past: Histories, fresh: Freshness) -> EngineView:
    """An engine's load."""
    finished = meter.labels("sage_engine_requests_total", "finish_reason")
    return EngineView(
        name=name,
        model=model,
        state=state,
        running=meter.value("sage_engine_requests_running"),
        waiting=meter.value("sage_engine_requests_waiting"),
        kv_usage=meter.value("sage_engine_kv_cache_usage_ratio"),
        prefix_hits=meter.value("sage_engine_prefix_hit_ratio"),
        prompt_rate=meter.rate("sage_engine_prompt_tokens_total"),
        token_rate=meter.rate("sage_engine_generation_tokens_total"),
        prompt_tokens=meter.value("sage_engine_prompt_tokens_total"),
        tokens=meter.value("sage_engine_generation_tokens_total"),
        requests=tuple((reason, _finished(meter, reason)) for reason in finished),
        ttft=meter.quantiles("sage_engine_ttft_seconds"),
        tpot=meter.quantiles("sage_engine_tpot_seconds"),
        token_history=past.get("tokens", ()),
        kv_history=past.get("kv", ()),
        fresh=fresh,
    )


def _finished(meter: Meter, reason: str) -> float:
    return meter.value("sage_engine_requests_total", lambda labels: labels.get("finish_reason") == reason) or 0.0


def gateway_view(state: str, meter: Meter, past: Histories, fresh: Freshness) -> GatewayView:
    """The gateway's traffic."""
    requests = "sage_gateway_requests_total"
    recent = meter.growth(requests, _is_work, window_s=60.0)
    failed = meter.growth(requests, _is_error, window_s=60.0)
    return GatewayView(
        state=state,
        rate=meter.rate(requests, _is_work),
        total=meter.value(requests, _is_work),
        errors=meter.value(requests, _is_error),
        error_ratio=(failed or 0.0) / recent if recent else (None if recent is None else 0.0),
        rejected=meter.value("sage_gateway_rejected_total"),
        inflight=meter.value("sage_gateway_inflight"),
        queue=meter.value("sage_gateway_queue_depth"),
        latency=meter.quantiles("sage_gateway_request_seconds", _is_work),
        ttft=meter.quantiles("sage_gateway_ttft_seconds"),
        routes=tuple(_route(meter, route) for route in meter.labels(requests, "route") if route not in _PROBES),
        rate_history=past.get("rate", ()),
        latency_history=past.get("latency", ()),
        fresh=fresh,
    )


def _route(meter: Meter, route: str) -> RouteView:
    def match(labels: Labels) -> bool:
        return labels.get("route") == route

    return RouteView(
        route=route,
        rate=meter.rate("sage_gateway_requests_total", match),
        total=meter.value("sage_gateway_requests_total", match) or 0.0,
        latency=meter.quantiles("sage_gateway_request_seconds", match),
    )


def embedding_view(name: str, model: str, state: str, meter: Meter, past: Histories, fresh: Freshness) -> EmbeddingView:
    """The embedding server's traffic."""
    return EmbeddingView(
        name=name,
        model=model,
        state=state,
        text_rate=meter.rate("sage_embedding_texts_total"),
        texts=meter.value("sage_embedding_texts_total"),
        batch_size=meter.mean("sage_embedding_batch_size"),
        latency=meter.quantiles("sage_embedding_request_seconds"),
        text_history=past.get("texts", ()),
        fresh=fresh,
    )

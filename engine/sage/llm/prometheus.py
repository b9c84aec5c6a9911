"""Prometheus counters that every daemon of `sage.llm` exposes the same way."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from sage.llm.asgi import Header

CONTENT_TYPE: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


def new_registry() -> CollectorRegistry:
    """Return a registry of its own, without the `_created` series that nobody reads."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def page(registry: CollectorRegistry) -> bytes:
    """Return the Prometheus text of a registry."""
    return generate_latest(registry)

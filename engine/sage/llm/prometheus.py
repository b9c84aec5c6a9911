"""Prometheus counters that every daemon of `sage.llm` exposes the same way."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest

from sage.llm.asgi import Header

CONTENT_TYPE: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


def new_registry() -> CollectorRegistry:
    """Return a registry of its own, without the `_created` series that nobody reads."""
    disable: object = prometheus_client.disable_created_metrics
    assert callable(disable)
    disable()
    return CollectorRegistry()


def page(registry: CollectorRegistry) -> bytes:
    """Return the Prometheus text of a registry."""
    return generate_latest(registry)

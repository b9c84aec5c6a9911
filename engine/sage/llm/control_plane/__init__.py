"""The control plane: which engines there are, how they are, who gets the next request, and what it cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.control_plane.admission import AdmissionQueue, AdmissionRefused, QueueFull
    from sage.llm.control_plane.classifier import RequestClassifier, RequestType
    from sage.llm.control_plane.executors.embedding_executor import EmbeddingExecutor
    from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator
    from sage.llm.control_plane.manager import ControlPlaneManager
    from sage.llm.control_plane.metrics_collector import MetricsCollector
    from sage.llm.control_plane.upstream import Upstream

__all__ = [
    "AdmissionQueue",
    "AdmissionRefused",
    "ControlPlaneManager",
    "EmbeddingExecutor",
    "HttpExecutionCoordinator",
    "MetricsCollector",
    "QueueFull",
    "RequestClassifier",
    "RequestType",
    "Upstream",
]

_HOME = {
    "AdmissionQueue": "admission",
    "AdmissionRefused": "admission",
    "ControlPlaneManager": "manager",
    "EmbeddingExecutor": "executors.embedding_executor",
    "HttpExecutionCoordinator": "executors.http_client",
    "MetricsCollector": "metrics_collector",
    "QueueFull": "admission",
    "RequestClassifier": "classifier",
    "RequestType": "classifier",
    "Upstream": "upstream",
}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

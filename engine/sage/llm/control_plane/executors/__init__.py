"""How requests reach engines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.control_plane.executors.embedding_executor import EmbeddingExecutor
    from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator

__all__ = ["EmbeddingExecutor", "HttpExecutionCoordinator"]

_HOME = {"EmbeddingExecutor": "embedding_executor", "HttpExecutionCoordinator": "http_client"}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""The embedding server: `/v1/embeddings` with dynamic batching over any method of `sage_embedding`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.embedding.app import EmbeddingLimits, create_app
    from sage.llm.embedding.batcher import DynamicBatcher
    from sage.llm.embedding.server import main

__all__ = ["DynamicBatcher", "EmbeddingLimits", "create_app", "main"]

_HOME = {"DynamicBatcher": "batcher", "EmbeddingLimits": "app", "create_app": "app", "main": "server"}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

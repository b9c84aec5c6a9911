"""Embeddings: one interface over every method that turns texts into vectors.

>>> from sage.common.components.sage_embedding import EmbeddingClientAdapter, EmbeddingFactory
>>> embedder = EmbeddingFactory.create("hash", dim=384)
>>> len(embedder.embed("one text"))
384
>>> len(EmbeddingClientAdapter(embedder).embed(["Hello", "World"]))
2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.common.components.sage_embedding.adapter import EmbeddingClientAdapter
    from sage.common.components.sage_embedding.base import BaseEmbedding
    from sage.common.components.sage_embedding.factory import (
        EmbeddingFactory,
        get_embedding_model,
        list_embedding_models,
    )
    from sage.common.components.sage_embedding.hashing import HashEmbedding
    from sage.common.components.sage_embedding.hf import HFEmbedding
    from sage.common.components.sage_embedding.protocols import EmbeddingClientProtocol, EmbeddingProtocol
    from sage.common.components.sage_embedding.remote import RemoteEmbedding

__all__ = [
    "BaseEmbedding",
    "EmbeddingClientAdapter",
    "EmbeddingClientProtocol",
    "EmbeddingFactory",
    "EmbeddingProtocol",
    "HFEmbedding",
    "HashEmbedding",
    "RemoteEmbedding",
    "get_embedding_model",
    "list_embedding_models",
]

_HOME = {
    "BaseEmbedding": "base",
    "EmbeddingClientAdapter": "adapter",
    "EmbeddingClientProtocol": "protocols",
    "EmbeddingFactory": "factory",
    "EmbeddingProtocol": "protocols",
    "HFEmbedding": "hf",
    "HashEmbedding": "hashing",
    "RemoteEmbedding": "remote",
    "get_embedding_model": "factory",
    "list_embedding_models": "factory",
}


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        """Import a name's module when the name is first used."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""From the one-text interface of a method to the batch interface that services use."""

from __future__ import annotations

from collections.abc import Sequence

from sage.common.components.sage_embedding.base import BaseEmbedding, check_texts
from sage.common.components.sage_embedding.protocols import EmbeddingProtocol


class EmbeddingClientAdapter:
    """Gives any embedder, ours or a user's own object with `embed(text)` and `get_dim()`, a batch `embed(texts)`.

    >>> from sage.common.components.sage_embedding import EmbeddingFactory
    >>> client = EmbeddingClientAdapter(EmbeddingFactory.create("hash", dim=64))
    >>> [len(vector) for vector in client.embed(["Hello", "World"])]
    [64, 64]
    """

    __slots__ = ("_embedder",)

    def __init__(self, embedder: EmbeddingProtocol) -> None:
        self._embedder = embedder

    @property
    def embedder(self) -> EmbeddingProtocol:
        """The embedder that was wrapped."""
        return self._embedder

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector a text, in order; raises TypeError for a bare string."""
        check_texts(texts)
        if isinstance(self._embedder, BaseEmbedding):
            return self._embedder.embed_batch(texts)
        return [self._embedder.embed(text) for text in texts]

    def get_dim(self) -> int:
        """Return the length of a vector."""
        return self._embedder.get_dim()

"""What an embedding method and an embedding client look like to the rest of SAGE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class EmbeddingProtocol(Protocol):
    """One text in, one vector out: what `EmbeddingFactory.create` returns."""

    @property
    def method_name(self) -> str:
        """The method's name as `EmbeddingFactory.create` takes it."""
        ...

    def embed(self, text: str) -> list[float]:
        """Return the vector of one text, of length `get_dim()`."""
        ...

    def get_dim(self) -> int:
        """Return the length of a vector."""
        ...


@runtime_checkable
class EmbeddingClientProtocol(Protocol):
    """Many texts in, one vector each out, in order: what services and pipelines use."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector a text, in the order of the texts."""
        ...

    def get_dim(self) -> int:
        """Return the length of a vector."""
        ...

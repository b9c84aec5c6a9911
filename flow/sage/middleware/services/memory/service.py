"""`MemoryService`: what was said, found again by likeness, by session or by id."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sage.common.errors import ServiceError
from sage.middleware.services.vdb import VDBService

__all__ = ["Memory", "MemoryService"]


class Memory(dict[str, Any]):
    """`{"id", "content", "session_id", "memory_type", "metadata", "created_at"}`; found ones have a `score` too."""


class MemoryService:
    """Memories with vectors: exact search by cosine. With `path` they survive a restart (saved by `close()`).

    The first vector fixes the dimension unless `dim` does. Methods may be called from any thread.
    """

    def __init__(self, dim: int | None = None, *, path: str | Path | None = None) -> None:
        self._vectors = VDBService(dim, path=path)

    def store_memory(
        self,
        content: str,
        vector: npt.ArrayLike,
        session_id: str = "default",
        memory_type: str = "conversation",
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Keep a text and its vector, shape (dim,). Returns its id. Raises ServiceError for a vector that does not fit.

        `metadata` are plain JSON values.
        """
        for name, value in (("content", content), ("session_id", session_id), ("memory_type", memory_type)):
            if not isinstance(value, str):
                raise ServiceError(f"{name} must be a text", cause=f"got {value!r:.80}")
        memory_id = uuid.uuid4().hex
        stored = {
            "content": content,
            "session_id": session_id,
            "memory_type": memory_type,
            "metadata": dict(metadata or {}),
            "created_at": time.time(),
        }
        self._vectors.add(vector, memory_id, stored)
        return memory_id

    def search_memories(
        self,
        vector: npt.ArrayLike,
        top_k: int = 5,
        *,
        session_id: str | None = None,
        memory_type: str | None = None,
    ) -> list[Memory]:
        """The memories most like the vector, the best first; of one session or kind only, when given."""
        wanted = {"session_id": session_id, "memory_type": memory_type}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        hits = self._vectors.search(vector, top_k, chosen or None)
        return [Memory(id=hit.id, score=hit.score, **hit.metadata) for hit in hits]

    def get_memory(self, memory_id: str) -> Memory | None:
        """One memory; None for an unknown id."""
        found = self._vectors.get_vector(memory_id)
        return None if found is None else Memory(id=memory_id, **found["metadata"])

    def get_session_memories(self, session_id: str, memory_type: str | None = None) -> list[Memory]:
        """All memories of a session, the oldest first."""
        return [
            Memory(id=entry["id"], **entry["metadata"])
            for entry in self._vectors.list_vectors()
            if entry["metadata"]["session_id"] == session_id and memory_type in (None, entry["metadata"]["memory_type"])
        ]

    def delete_memory(self, memory_id: str) -> bool:
        """Remove a memory; False for an unknown id."""
        return self._vectors.delete_vectors(memory_id) > 0

    def stats(self) -> dict[str, Any]:
        """`count`, `sessions`, `by_type`, and the `vectors` of the store."""
        stored = [entry["metadata"] for entry in self._vectors.list_vectors()]
        return {
            "count": len(stored),
            "sessions": len({entry["session_id"] for entry in stored}),
            "by_type": dict(Counter(entry["memory_type"] for entry in stored)),
            "vectors": self._vectors.stats(),
        }

    def close(self) -> None:
        """Save when a `path` was given and something changed; the service can still be used."""
        self._vectors.close()

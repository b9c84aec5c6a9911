"""Long-term memory of conversations: texts with vectors, by session, kind and similarity."""

from sage.middleware.services.memory.service import Memory, MemoryService

__all__ = ["Memory", "MemoryService"]

"""A vector store in this process: numpy, exact, with metadata, filters and persistence (SPEC S2)."""

from sage.middleware.services.vdb.service import Hit, VDBService

__all__ = ["Hit", "VDBService"]

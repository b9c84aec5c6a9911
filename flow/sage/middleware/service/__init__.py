"""Clients of remote services, made to stand in a pipeline: `stream.map(ModelService(...).embedding)` (SPEC S3)."""

from sage.middleware.service.model_service import ModelService
from sage.middleware.service.vector_db_service import VectorDBService

__all__ = ["ModelService", "VectorDBService"]

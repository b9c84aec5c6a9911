"""Documents, vectors, metadata, and how they become JSON and come back (SPEC P6)."""

from __future__ import annotations

from sage.common.types.document import BaseDocument
from sage.common.types.metadata import Metadata
from sage.common.types.serialization import Serializable, dumps, loads
from sage.common.types.vectors import DenseVector, SparseVector

__all__ = ["BaseDocument", "DenseVector", "Metadata", "Serializable", "SparseVector", "dumps", "loads"]

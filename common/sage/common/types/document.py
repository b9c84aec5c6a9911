"""The document: a text with an id and metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sage.common.types.metadata import Metadata

__all__ = ["BaseDocument"]


@dataclass(slots=True, frozen=True, kw_only=True)
class BaseDocument:
    """The ground of every document type; subclasses add fields.

    Without an id the document gets one from its text and source, so the same document always has the same id.
    """

    text: str
    id: str = ""
    source: str = ""
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        given: object = self.metadata
        if isinstance(given, Mapping) and not isinstance(given, Metadata):  # a plain mapping is welcome
            object.__setattr__(self, "metadata", Metadata(given))
        if not self.id:
            digest = hashlib.sha256(f"{self.source}\0{self.text}".encode("utf-8", "surrogatepass"))
            object.__setattr__(self, "id", digest.hexdigest()[:32])

    def with_metadata(self, **changes: Any) -> Self:
        """A copy with these metadata set."""
        return replace(self, metadata=self.metadata.updated(**changes))

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text, "source": self.source, "metadata": self.metadata.to_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The reverse of to_dict. KeyError when there is no text."""
        return cls(
            text=str(record["text"]),
            id=str(record.get("id") or ""),
            source=str(record.get("source") or ""),
            metadata=Metadata(record.get("metadata") or {}),
        )

"""SAGE's way to models: the client, the gateway with its control plane, and the embedding server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.client import UnifiedInferenceClient

__all__ = ["UnifiedInferenceClient"]

_HOME = {"UnifiedInferenceClient": "client"}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

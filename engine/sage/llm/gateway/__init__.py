"""The gateway: one OpenAI-compatible address for chat, completions and embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.gateway.app import create_app
    from sage.llm.gateway.server import main
    from sage.llm.gateway.settings import GatewaySettings

__all__ = ["GatewaySettings", "create_app", "main"]

_HOME = {"GatewaySettings": "settings", "create_app": "app", "main": "server"}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

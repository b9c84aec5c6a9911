"""A reproducible load on any OpenAI-compatible server, and what came of it: `sage bench llm`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage.llm.bench.load import Load, Outcome, run
    from sage.llm.bench.report import Round, table

__all__ = ["Load", "Outcome", "Round", "run", "table"]

_HOME = {"Load": "load", "Outcome": "load", "Round": "report", "run": "load", "table": "report"}


def __getattr__(name: str) -> object:
    """Import a name's module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""Nodes of a runtime with separated prefill and decode: what a node process runs, and what is said to it."""

from sagellm_core.nodes.decode import DecodeEngine
from sagellm_core.nodes.prefill import PrefillEngine

__all__ = ["DecodeEngine", "PrefillEngine"]

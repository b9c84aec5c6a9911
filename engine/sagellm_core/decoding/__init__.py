"""How tokens are chosen: `params` settles a request's parameters, a strategy chooses (one file each; they bring torch).

A new strategy is a file here with a subclass of `BaseDecodingStrategy`, its line below, and one in `decoder`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sagellm_core.decoding.params import resolve_sampling

if TYPE_CHECKING:
    from sagellm_core.decoding.base import BaseDecodingStrategy
    from sagellm_core.decoding.beam_search import BeamSearchStrategy
    from sagellm_core.decoding.contrastive import ContrastiveStrategy
    from sagellm_core.decoding.greedy import GreedyStrategy
    from sagellm_core.decoding.sampling import SamplingStrategy
    from sagellm_core.decoding.speculative import SpeculativeStrategy

__all__ = [
    "BaseDecodingStrategy",
    "BeamSearchStrategy",
    "ContrastiveStrategy",
    "GreedyStrategy",
    "SamplingStrategy",
    "SpeculativeStrategy",
    "resolve_sampling",
]

_HOME = {
    "BaseDecodingStrategy": "base",
    "BeamSearchStrategy": "beam_search",
    "ContrastiveStrategy": "contrastive",
    "GreedyStrategy": "greedy",
    "SamplingStrategy": "sampling",
    "SpeculativeStrategy": "speculative",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""Engines by the name of a backend."""

from __future__ import annotations

from sagellm_core.backends.base import backend_names, check_kind
from sagellm_core.config import LLMEngineConfig
from sagellm_core.llm_engine import LLMEngine
from sagellm_core.models.locate import DEFAULT_MODEL

__all__ = ["EngineFactory", "new_engine"]


def new_engine(config: LLMEngineConfig) -> LLMEngine:
    """The engine that a configuration asks for, not started yet: one process (and its ranks), or several nodes."""
    if not config.decode_nodes + config.hybrid_nodes:
        return LLMEngine(config)
    from sagellm_core.runtime import DistributedRuntime

    return DistributedRuntime(config)


class EngineFactory:
    """Makes engines that are not started yet.

    >>> EngineFactory().create("cpu").config.backend_type
    'cpu'
    """

    def create(self, kind: str = "auto", config: LLMEngineConfig | None = None) -> LLMEngine:
        """An engine on a kind of backend; without a configuration, of the built-in model.

        Raises EngineError that names the known kinds.
        """
        check_kind(kind)
        base = config or LLMEngineConfig(model_path=DEFAULT_MODEL)
        return new_engine(base.model_copy(update={"backend_type": kind}))

    def kinds(self) -> list[str]:
        """The backends that were found, ours and those of other packages."""
        return sorted(backend_names())

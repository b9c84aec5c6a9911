"""The LLM engine: continuous batching over a paged KV cache, on any device that has a backend.

Importing this package costs next to nothing; torch comes with the first engine that starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.common import __version__
    from sagellm_core.backends import BackendConfig, create_backend, get_provider
    from sagellm_core.config import LLMEngineConfig, load_config
    from sagellm_core.engine_server import engine_server_app
    from sagellm_core.errors import EngineError, ModelLoadError
    from sagellm_core.factory import EngineFactory
    from sagellm_core.kv_transfer import KVTransferChannel
    from sagellm_core.llm_engine import LLMEngine
    from sagellm_core.nodes import DecodeEngine, PrefillEngine
    from sagellm_core.pd_executor import PDSeparatedExecutor
    from sagellm_core.runtime import DistributedRuntime, PDLayout

__all__ = [
    "BackendConfig",
    "DecodeEngine",
    "DistributedRuntime",
    "EngineError",
    "EngineFactory",
    "KVTransferChannel",
    "LLMEngine",
    "LLMEngineConfig",
    "ModelLoadError",
    "PDLayout",
    "PDSeparatedExecutor",
    "PrefillEngine",
    "__version__",
    "create_backend",
    "engine_server_app",
    "get_provider",
    "load_config",
]

_HOME = {
    "BackendConfig": "sagellm_core.backends",
    "DecodeEngine": "sagellm_core.nodes",
    "DistributedRuntime": "sagellm_core.runtime",
    "EngineError": "sagellm_core.errors",
    "EngineFactory": "sagellm_core.factory",
    "KVTransferChannel": "sagellm_core.kv_transfer",
    "LLMEngine": "sagellm_core.llm_engine",
    "LLMEngineConfig": "sagellm_core.config",
    "ModelLoadError": "sagellm_core.errors",
    "PDLayout": "sagellm_core.runtime",
    "PDSeparatedExecutor": "sagellm_core.pd_executor",
    "PrefillEngine": "sagellm_core.nodes",
    "__version__": "sage.common",
    "create_backend": "sagellm_core.backends",
    "engine_server_app": "sagellm_core.engine_server",
    "get_provider": "sagellm_core.backends",
    "load_config": "sagellm_core.config",
}


_EXTRA = frozenset({"jinja2", "starlette", "tokenizers", "torch"})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        text = f"sagellm_core.{name} needs {error.name}, which is not installed:  pip install 'sage-stack[engine]'"
        raise ImportError(text, name=error.name) from error


def __dir__() -> list[str]:
    return __all__

"""The engine behind HTTP: OpenAI's routes over an `LLMEngine`."""

from sagellm_core.server.app import create_app
from sagellm_core.server.service import EngineService

__all__ = ["EngineService", "create_app"]

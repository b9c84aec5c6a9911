"""The services of an environment."""

from sage.core.runtime.services.registry import ServiceRegistry

__all__ = ["ServiceRegistry"]

"""Devices: what they can do, and how they are found."""

from sagellm_core.backends.base import (
    Backend,
    BackendConfig,
    CapturedStep,
    StepCapture,
    backend_names,
    create_backend,
    get_provider,
)

__all__ = [
    "Backend",
    "BackendConfig",
    "CapturedStep",
    "StepCapture",
    "backend_names",
    "create_backend",
    "get_provider",
]

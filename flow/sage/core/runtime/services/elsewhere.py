"""The services of an environment in its worker processes: each makes its own, from the same factories."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from sage.common.errors import ServiceError

if TYPE_CHECKING:
    from sage.core.api.service_options import ServiceOptions
    from sage.core.runtime.services.registry import Definition, ServiceRegistry

__all__ = ["registry_elsewhere", "sent"]


def sent(definition: Definition) -> tuple[str, bytes | str, ServiceOptions]:
    """Name, how to make it (pickled; or why that cannot be), options."""
    import cloudpickle

    name, factory, args, kwargs, options = definition
    try:
        return name, bytes(cloudpickle.dumps((factory, args, kwargs))), options
    except Exception as error:
        return name, f"{type(error).__name__}: {error}", options


def registry_elsewhere(definitions: list[tuple[str, bytes | str, ServiceOptions]]) -> ServiceRegistry:
    """A registry of these services. One that could not be pickled raises ServiceError when it is called."""
    from sage.core.runtime.services.registry import ServiceRegistry

    registry = ServiceRegistry()
    for name, how, options in definitions:
        if isinstance(how, str):
            registry.register(name, _refusing(name, how), (), {}, options)
        else:
            factory, args, kwargs = pickle.loads(how)  # noqa: S301 - from the master of the same job
            registry.register(name, factory, args, kwargs, options)
    return registry


def _refusing(name: str, why: str) -> Any:
    def refuse() -> Any:
        raise ServiceError(
            f"Service {name!r} cannot be made in a worker process",
            cause=why,
            hint="register its class or a function that makes it, or run the job with execution.runtime: threads",
        )

    return refuse

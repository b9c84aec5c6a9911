"""Which method of a service a call means, and how its failures are told."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, cast

from sage.common.errors import ServiceError

__all__ = ["NoMethod", "failed", "is_coroutine", "method_of"]


class NoMethod(ServiceError):  # noqa: N818 - reads as what it is
    """The call asks for what the service does not have: nothing to retry, and no sign of bad health."""


def method_of(name: str, instance: Any, method: str | None) -> Callable[..., Any]:
    """The function to call; without a method the service's `process`, `execute`, or itself. Raises NoMethod."""
    if method is not None:
        function = getattr(instance, method, None)
        if callable(function):
            return cast("Callable[..., Any]", function)
        public = [entry for entry in dir(instance) if not entry.startswith("_") and callable(getattr(instance, entry))]
        near = difflib.get_close_matches(method, public, 1)
        raise NoMethod(
            f"Service {name!r} has no method {method!r}",
            cause=f"{type(instance).__name__} has: {', '.join(public) or 'none'}",
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    for candidate in ("process", "execute"):
        function = getattr(instance, candidate, None)
        if callable(function):
            return cast("Callable[..., Any]", function)
    if callable(instance):
        return cast("Callable[..., Any]", instance)
    raise NoMethod(
        f"Service {name!r} cannot be called without a method",
        cause=f"{type(instance).__name__} has neither process, execute nor __call__",
        hint=f'call_service({name!r}, ..., method="...")',
    )


def is_coroutine(function: Any) -> bool:
    """Whether a call gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def failed(title: str, error: Exception) -> ServiceError:
    """A ServiceError that tells of another one."""
    told = ServiceError(title, cause=f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told

"""The two ways in which a function calls a service; they know nothing of how services are made and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sage.core.runtime.answer import Answer

__all__ = ["AsyncServiceCalls", "ServiceCalls", "ServiceProvider"]


class ServiceProvider(Protocol):
    """What holds the services of an environment."""

    def get(self, name: str) -> Any:
        """The one instance, made on first use. Raises ServiceError."""

    def call(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method now, in this thread."""

    def submit(
        self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Answer[Any]:
        """Call a method in a service thread; a timeout (seconds) counts from now."""


class ServiceCalls:
    """`calls["name"].method(…)`, or `calls("name", …, method=…, timeout=…)`."""

    __slots__ = ("_provider",)

    def __init__(self, provider: ServiceProvider) -> None:
        self._provider = provider

    def __getitem__(self, name: str) -> Any:
        return self._provider.get(name)

    def __call__(
        self, name: str, /, *args: Any, method: str | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Call `method` of the service (default: its `process`, `execute` or the service itself).

        With a `timeout` in seconds the call runs in a service thread; ServiceError when it takes longer.
        """
        if timeout is None:
            return self._provider.call(name, method, args, kwargs)
        return self._provider.submit(name, method, args, kwargs, timeout).result()


class AsyncServiceCalls:
    """As `ServiceCalls`, but calls return a Future: start several, then ask each for its `result()`; or `await` it."""

    __slots__ = ("_provider",)

    def __init__(self, provider: ServiceProvider) -> None:
        self._provider = provider

    def __getitem__(self, name: str) -> AsyncService:
        return AsyncService(self._provider, name)

    def __call__(
        self, name: str, /, *args: Any, method: str | None = None, timeout: float | None = None, **kwargs: Any
    ) -> Answer[Any]:
        return self._provider.submit(name, method, args, kwargs, timeout)


class AsyncService:
    """A service whose methods return Futures."""

    __slots__ = ("_name", "_provider")

    def __init__(self, provider: ServiceProvider, name: str) -> None:
        self._provider = provider
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Answer[Any]]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Answer[Any]:
            return self._provider.submit(self._name, method, args, kwargs, None)

        return call

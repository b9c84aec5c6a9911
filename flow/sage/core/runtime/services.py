"""The services of an environment: made on first use, shared by all its tasks and jobs, closed with the environment."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from sage.common.errors import SageError, ServiceError
from sage.core.runtime.worker_pool import WorkerPool

__all__ = ["ServiceRegistry"]

WORKERS = 32


@dataclass(slots=True)
class _Service:
    name: str
    make: Callable[[], Any]
    making: threading.RLock = field(default_factory=threading.RLock)
    calling: threading.RLock = field(default_factory=threading.RLock)
    made: bool = False
    instance: Any = None


class _InTurns:
    """A service whose methods are called one at a time."""

    __slots__ = ("_calling", "_instance")

    def __init__(self, instance: Any, calling: threading.RLock) -> None:
        self._instance = instance
        self._calling = calling

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._instance, name)
        return partial(self._call, value) if callable(value) else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._instance, *args, **kwargs)

    def _call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self._calling:
            return function(*args, **kwargs)


class ServiceRegistry:
    """Services by name.

    Calls come from many threads at once. A service that cannot stand that says so with a class attribute
    `thread_safe = False`; then the calls of its methods take turns.
    """

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}
        self._lock = threading.Lock()
        self._pool: WorkerPool | None = None

    def register(self, name: str, factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A factory or class, called with these arguments on first use; or a ready object."""
        if not name or not isinstance(name, str):
            raise ServiceError("A service needs a name", cause=f"got {name!r}")
        if factory is None or (not callable(factory) and (args or kwargs)):
            raise ServiceError(f"Service {name!r} cannot be made", cause=f"{factory!r:.80} cannot be called")
        make = (lambda: factory(*args, **kwargs)) if callable(factory) else (lambda: factory)
        with self._lock:
            if name in self._services:
                raise ServiceError(f"Service {name!r} is registered already", hint="give the second one another name")
            self._services[name] = _Service(name, make)

    @property
    def names(self) -> list[str]:
        return sorted(self._services)

    def get(self, name: str) -> Any:
        """The instance, or what stands before one that is not thread-safe. Raises ServiceError."""
        instance = self._instance(name)
        return instance if _thread_safe(instance) else _InTurns(instance, self._services[name].calling)

    def _instance(self, name: str) -> Any:
        """The first caller makes it, others wait."""
        service = self._services.get(name)
        if service is None:
            raise self._unknown(name)
        if not service.made:
            with service.making:
                if not service.made:
                    service.instance = self._make(service)
                    service.made = True
        return service.instance

    def call(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of a service in this thread."""
        instance = self._instance(name)
        function = _method(name, instance, method)
        if _thread_safe(instance):
            return function(*args, **kwargs)
        with self._services[name].calling:
            return function(*args, **kwargs)

    def submit(
        self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Future[Any]:
        """Call a method of a service in another thread."""
        if name not in self._services:
            raise self._unknown(name)
        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(WORKERS, "sage-service")
            pool = self._pool
        future = pool.submit(self.call, name, method, args, kwargs)
        return future if timeout is None else _with_deadline(future, name, timeout)

    def close(self) -> None:
        """Close what was made, the last registered first; services can be made again afterwards.

        Raises ServiceError with the first failure, after having tried all.
        """
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        failed: ServiceError | None = None
        for service in reversed(self._services.values()):
            with service.making:
                instance, service.instance = service.instance, None
                made, service.made = service.made, False
            close = getattr(instance, "close", None)
            if made and callable(close):
                try:
                    close()
                except Exception as error:
                    failed = failed or _failed(f"Service {service.name!r} did not close", error)
        if failed is not None:
            raise failed

    def _make(self, service: _Service) -> Any:
        try:
            instance = service.make()
        except SageError:
            raise
        except Exception as error:
            raise _failed(f"Service {service.name!r} could not be made", error) from error
        if instance is None:
            raise ServiceError(f"Service {service.name!r} could not be made", cause="its factory returned None")
        return instance

    def _unknown(self, name: str) -> ServiceError:
        near = difflib.get_close_matches(str(name), self._services, 1)
        known = ", ".join(self.names) or "none"
        return ServiceError(
            f"There is no service {name!r}",
            cause=f"registered: {known}",
            hint=f"did you mean {near[0]!r}?" if near else f"env.register_service({name!r}, factory)",
        )


def _thread_safe(instance: Any) -> bool:
    return bool(getattr(instance, "thread_safe", True))


def _with_deadline(call: Future[Any], name: str, seconds: float) -> Future[Any]:
    """The call's outcome, or a ServiceError once `seconds` have passed; the call itself cannot be interrupted."""
    outcome: Future[Any] = Future()
    late = ServiceError(
        f"Service {name!r} did not answer within {seconds:g} s", hint="raise timeout=, or look at its log"
    )
    timer = threading.Timer(seconds, _settle, (outcome, None, late))
    timer.daemon = True

    def finished(done: Future[Any]) -> None:
        timer.cancel()
        error = CancelledError() if done.cancelled() else done.exception()
        _settle(outcome, None if error else done.result(), error)

    timer.start()
    call.add_done_callback(finished)
    return outcome


def _settle(outcome: Future[Any], result: Any, error: BaseException | None) -> None:
    """Whichever comes first, the answer or the deadline, counts."""
    with suppress(InvalidStateError):
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)


def _method(name: str, instance: Any, method: str | None) -> Callable[..., Any]:
    if method is not None:
        function = getattr(instance, method, None)
        if callable(function):
            return cast("Callable[..., Any]", function)
        public = [entry for entry in dir(instance) if not entry.startswith("_") and callable(getattr(instance, entry))]
        near = difflib.get_close_matches(method, public, 1)
        raise ServiceError(
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
    raise ServiceError(
        f"Service {name!r} cannot be called without a method",
        cause=f"{type(instance).__name__} has neither process, execute nor __call__",
        hint=f'call_service({name!r}, ..., method="...")',
    )


def _failed(title: str, error: Exception) -> ServiceError:
    failed = ServiceError(title, cause=f"{type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed

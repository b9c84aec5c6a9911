"""The services of an environment: made on first use, shared by all its tasks and jobs, closed with the environment."""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sage.common.errors import ServiceError
from sage.core.api.function.call_origin import current_origin, origin_variable
from sage.core.api.service_options import ServiceOptions
from sage.core.api.units import parse_duration
from sage.core.runtime.answer import Answer, chained
from sage.core.runtime.clock import Clock, SystemClock
from sage.core.runtime.services.instance import is_thread_safe
from sage.core.runtime.worker_pool import WorkerPool

if TYPE_CHECKING:
    import asyncio

    from sage.core.runtime.event_loop import EventLoopThread
    from sage.core.runtime.services.group import ServiceGroup

__all__ = ["ServiceRegistry"]

WORKERS = 32

Definition: TypeAlias = tuple[str, Any, tuple[Any, ...], dict[str, Any], ServiceOptions]  # as `register` takes it


class ServiceRegistry:
    """Services by name.

    Calls come from many threads at once. A service that cannot stand that says so with a class attribute
    `thread_safe = False`; then the calls of its methods take turns. Calls of a service that needs no more than that go
    to its one instance in the caller's thread; all others go through the event loop of the services.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._groups: dict[str, ServiceGroup] = {}
        self._lock = threading.RLock()
        self._clock = clock or SystemClock()
        self._pool: WorkerPool | None = None
        self._thread: EventLoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._direct: dict[str, bool] = {}
        self._definitions: list[Definition] = []

    def __reduce__(self) -> tuple[object, ...]:
        """In another process: the same services, made anew there on first use."""
        from sage.core.runtime.services.elsewhere import registry_elsewhere, sent

        return registry_elsewhere, ([sent(definition) for definition in self._definitions],)

    def register(
        self,
        name: str,
        factory: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ServiceOptions | None = None,
    ) -> None:
        """A factory or class, called with these arguments on first use; or a ready object."""
        from sage.core.runtime.services.group import ServiceGroup

        if not name or not isinstance(name, str):
            raise ServiceError("A service needs a name", cause=f"got {name!r}")
        chosen, rest = ServiceOptions.split(factory, kwargs, options)
        if factory is None or (not callable(factory) and (args or rest)):
            raise ServiceError(f"Service {name!r} cannot be made", cause=f"{factory!r:.80} cannot be called")
        if not callable(factory) and chosen.replicas * chosen.shards > 1:
            raise ServiceError(
                f"Service {name!r} cannot have several instances",
                cause=f"{factory!r:.80} is a ready object",
                hint="register its class, or a function that makes it",
            )
        with self._lock:
            if name in self._groups:
                raise ServiceError(f"Service {name!r} is registered already", hint="give the second one another name")
            make = partial(_make, factory, args, rest)
            self._definitions.append((name, factory, args, rest, chosen))
            self._groups[name] = ServiceGroup(name, make, chosen, run=self._run, clock=self._clock, named=self._group)

    @property
    def names(self) -> list[str]:
        return sorted(self._groups)

    def get(self, name: str) -> Any:
        """The instance itself, or what stands before several, or before one that is not thread-safe or collects its
        calls. Raises ServiceError."""
        if not self._is_direct(name):
            group = self._groups[name]
            return ServiceProxy(self, name, group.first.value() if group.options.is_plain else None)
        instance = self._groups[name].first
        value = instance.value()
        return value if is_thread_safe(value) else ServiceProxy(self, name, value)

    def call(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of a service, and wait for its answer."""
        if self._is_direct(name):
            return self._groups[name].first.call(method, args, kwargs)
        return self._managed(name, method, args, kwargs).result()

    def submit(
        self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Answer[Any]:
        """Call a method of a service; the answer comes later."""
        group = self._group(name)
        if not self._is_direct(name, made=False):
            future = self._managed(name, method, args, kwargs)
        else:
            future = self._run(_context_of_call().run, group.first.call, method, args, kwargs)
        return future if timeout is None else _with_deadline(future, name, timeout)

    def health(self) -> list[dict[str, Any]]:
        """Every instance: service, shard, replica, made, healthy, in_flight, failures (in a row)."""
        return [
            {
                "service": group.name,
                "shard": instance.shard,
                "replica": instance.replica,
                "made": instance.is_made,
                "healthy": instance.down_until is None,
                "in_flight": instance.in_flight,
                "failures": instance.failures,
            }
            for group in self._groups.values()
            for instance in group.instances
        ]

    def check_health(self) -> None:
        """Ask all instances that were made for their health now."""
        for group in self._groups.values():
            self._spawn(group.check(), copy_context()).result()

    def close(self) -> None:
        """Close what was made, the last registered first; services can be made again afterwards.

        Raises ServiceError with the first failure, after having tried all.
        """
        with self._lock:
            pool, self._pool = self._pool, None
            thread, self._thread, self._loop = self._thread, None, None
            self._direct.clear()
        if thread is not None:
            thread.release()
        if pool is not None:
            pool.close()
        problem: ServiceError | None = None
        for group in reversed(self._groups.values()):
            for instance in reversed(group.instances):
                try:
                    instance.close()
                except ServiceError as error:
                    problem = problem or error
        if problem is not None:
            raise problem

    def _group(self, name: str) -> ServiceGroup:
        group = self._groups.get(name)
        if group is None:
            raise self._unknown(name)
        return group

    def _is_direct(self, name: str, *, made: bool = True) -> bool:
        """Whether calls go to the instance as they are. `made`: make it if need be, to find that out."""
        known = self._direct.get(name)
        if known is not None:
            return known
        group = self._group(name)
        if not group.options.is_plain:
            direct = False
        elif not made and not group.first.is_made:
            return False  # its class may be slow to make: not in the caller's thread
        else:
            value = group.first.value()
            direct = not group.collects() and not _has_coroutines(value)
        self._direct[name] = direct
        return direct

    def _managed(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer[Any]:
        return self._spawn(self._group(name).call(method, args, kwargs), _context_of_call())

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> Answer[Any]:
        """Run it in the services' loop, in that context."""
        loop = self._started()
        future: Answer[Any] = Answer()
        loop.call_soon_threadsafe(lambda: chained(loop.create_task(coroutine, context=context), future))
        return future

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                from sage.core.runtime.event_loop import EventLoopThread

                self._thread = EventLoopThread("sage-services")
                self._loop = self._thread.acquire()
                for group in self._groups.values():
                    self._watch(self._loop, group)
            return self._loop

    def _watch(self, loop: asyncio.AbstractEventLoop, group: ServiceGroup) -> None:
        """Look after its health from time to time."""
        interval = group.options.health_interval
        if interval is None or group.options.is_plain:
            return

        async def watch() -> None:
            import asyncio

            while True:
                await asyncio.sleep(parse_duration(interval))
                await group.check()

        loop.call_soon_threadsafe(lambda: loop.create_task(watch()))

    def _run(self, function: Callable[..., Any], *args: Any) -> Answer[Any]:
        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(WORKERS, "sage-service")
            return self._pool.submit(function, *args)

    def _unknown(self, name: str) -> ServiceError:
        near = difflib.get_close_matches(str(name), self._groups, 1)
        known = ", ".join(self.names) or "none"
        return ServiceError(
            f"There is no service {name!r}",
            cause=f"registered: {known}",
            hint=f"did you mean {near[0]!r}?" if near else f"env.register_service({name!r}, factory)",
        )


class ServiceProxy:
    """Stands for a service whose calls do not go to one instance as they are."""

    __slots__ = ("_name", "_registry", "_value")

    def __init__(self, registry: Any, name: str, value: Any = None) -> None:
        self._registry = registry
        self._name = name
        self._value = value

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        found = getattr(self._value, method, self)
        return partial(self._call, method) if self._value is None or callable(found) else found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._value is not None:
            return self._call("__call__", *args, **kwargs)
        return self._call(None, *args, **kwargs)

    def _call(self, method: str | None, /, *args: Any, **kwargs: Any) -> Any:
        return self._registry.call(self._name, method, args, kwargs)


def _make(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shard: int, replica: int) -> Any:
    """An instance; a factory that asks for the numbers is told them."""
    if not callable(factory):
        return factory
    try:
        asked = set(inspect.signature(factory).parameters) - set(kwargs)
    except (TypeError, ValueError):
        asked = set()
    numbers = {"shard": shard, "replica": replica}
    return factory(*args, **kwargs, **{name: number for name, number in numbers.items() if name in asked})


def _has_coroutines(value: Any) -> bool:
    """Whether any public method is async: such ones run in the services' loop."""
    kind = type(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return inspect.iscoroutinefunction(value)
    return any(
        inspect.iscoroutinefunction(inspect.getattr_static(kind, name, None))
        for name in dir(kind)
        if not name.startswith("_") or name == "__call__"
    )


def _context_of_call() -> Context:
    """This thread's context, with the record that the operator is at now, also when it goes on meanwhile."""
    context = copy_context()
    origin = current_origin()
    if origin is not None:
        context.run(origin_variable.set, origin.fixed())
    return context


def _with_deadline(call: Future[Any], name: str, seconds: float) -> Answer[Any]:
    """The call's outcome, or a ServiceError once `seconds` have passed; the call itself cannot be interrupted."""
    outcome: Answer[Any] = Answer()
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

"""The instances of a service, and the way of a call among them: shard, replica, timeout, retry, fallback.

Everything here runs in the event loop of the services; what blocks runs in service threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from sage.common.errors import ServiceError
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.service_options import ServiceOptions
from sage.core.api.units import parse_duration
from sage.core.runtime.clock import Clock
from sage.core.runtime.services.instance import Instance, Run
from sage.core.runtime.services.methods import NoMethod, is_coroutine, method_of
from sage.core.state.serialization import dump

__all__ = ["ServiceGroup"]

HEALTH = ("health_check", "health")


class ServiceGroup:
    """One registered service. `run(function, *args)` calls in a service thread; `named(name)` finds fallbacks."""

    def __init__(
        self,
        name: str,
        make: Callable[[int, int], Any],
        options: ServiceOptions,
        *,
        run: Run,
        clock: Clock,
        named: Callable[[str], ServiceGroup],
    ) -> None:
        self.name = name
        self.options = options
        self.shards = [
            [
                Instance(name, partial(make, shard, replica), shard=shard, replica=replica)
                for replica in range(options.replicas)
            ]
            for shard in range(options.shards)
        ]
        self._run = run
        self._clock = clock
        self._named = named
        self._retry = RetryPolicy.of(options.retry)
        self._timeout = None if options.timeout is None else parse_duration(options.timeout)
        self._turn = -1

    @property
    def instances(self) -> list[Instance]:
        """All of them, made or not."""
        return [instance for shard in self.shards for instance in shard]

    @property
    def first(self) -> Instance:
        """The one of a service that has only one."""
        return self.shards[0][0]

    def collects(self) -> bool:
        """Whether the service wants its calls in batches; makes the first instance if need be."""
        return bool(getattr(self.first.value(), "batch_methods", None))

    async def call(self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer; of a fallback when this service does not give one. Raises the service's own error."""
        chain = [self, *(self._named(name) for name in self.options.fallbacks)]
        for group in chain[:-1]:
            try:
                return await group.tried(method, args, kwargs, only_healthy=True)
            except NoMethod:
                raise
            except Exception:  # noqa: S112 - the next one answers; the instance's failures are counted
                continue
        return await chain[-1].tried(method, args, kwargs, only_healthy=False)

    async def tried(
        self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, only_healthy: bool
    ) -> Any:
        """The answer of this service, with its retries. `only_healthy`: raises at once where no instance is."""
        shard = self.shards[self.shard_of(args, kwargs)]
        attempt = 0
        while True:
            attempt += 1
            instance = await self._choose(shard, only_healthy)
            try:
                answer = await self._attempt(instance, method, args, kwargs)
                pause = self._retry.after_result(attempt, answer)
                if pause is None:
                    return answer
            except NoMethod:
                raise
            except Exception as error:
                pause = self._retry.after_error(attempt, error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def shard_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The number of the shard of a call's key: the same in every process. Raises ServiceError without a key."""
        if len(self.shards) == 1:
            return 0
        by = self.options.shard_by
        try:
            if callable(by):
                key = by(*args, **kwargs)
            elif isinstance(by, str):
                key = kwargs[by]
            else:
                key = args[by or 0]
        except (KeyError, IndexError) as error:
            raise NoMethod(
                f"A call of service {self.name!r} has no shard",
                cause=f"shard_by={by!r} names an argument that was not given",
                hint="give it by keyword where shard_by is a name, by position where it is a number",
            ) from error
        return zlib.crc32(dump(key)) % len(self.shards)

    async def check(self) -> None:
        """Ask every instance that was made for its health."""
        for instance in self.instances:
            if instance.is_made and instance.in_flight == 0 and instance.down_until is None:
                await self._is_well(instance)

    async def _choose(self, shard: Sequence[Instance], only_healthy: bool) -> Instance:
        """The healthy instance with the fewest calls, in turns; one that was down when its health is back."""
        now = self._clock.monotonic()
        for instance in shard:
            if instance.down_until is not None and instance.down_until <= now:
                instance.down_until = now + parse_duration(self.options.recovery)
                if await self._is_well(instance):
                    instance.down_until, instance.failures = None, self.options.failures - 1
        healthy = [instance for instance in shard if instance.down_until is None]
        if not healthy and only_healthy:
            raise ServiceError(f"No instance of service {self.name!r} is healthy")
        self._turn += 1
        among = healthy or list(shard)
        ordered = among[self._turn % len(among) :] + among[: self._turn % len(among)]
        return min(ordered, key=lambda instance: instance.in_flight)

    async def _is_well(self, instance: Instance) -> bool:
        """What the instance itself says; one that has nothing to say is tried."""

        def ask() -> bool:
            value = instance.value()
            check = next((getattr(value, name) for name in HEALTH if callable(getattr(value, name, None))), None)
            answer = check() if check is not None else True
            return answer is None or bool(answer)

        try:
            well = await asyncio.wait_for(asyncio.wrap_future(self._run(ask)), self._timeout or 5.0)
        except Exception:
            well = False
        if not well:
            instance.down_until = self._clock.monotonic() + parse_duration(self.options.recovery)
        return bool(well)

    async def _attempt(
        self, instance: Instance, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        instance.in_flight += 1
        try:
            answer = await asyncio.wait_for(self._answer(instance, method, args, kwargs), self._timeout)
        except NoMethod:
            raise
        except Exception as error:
            self._count_failure(instance)
            if isinstance(error, TimeoutError) and self._timeout is not None:
                raise _late(self.name, self._timeout) from error
            raise
        finally:
            instance.in_flight -= 1
        instance.failures = 0
        return answer

    def _count_failure(self, instance: Instance) -> None:
        instance.failures += 1
        if instance.failures >= self.options.failures:
            instance.down_until = self._clock.monotonic() + parse_duration(self.options.recovery)

    async def _answer(
        self, instance: Instance, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not instance.is_made:
            await self._threaded(instance.value)
        value = instance.value()
        if len(args) == 1 and not kwargs:
            batcher = instance.batcher(method, self.options.max_batch, self._run)
            if batcher is not None:
                return await asyncio.wrap_future(batcher.submit(args[0]))
        function = method_of(self.name, value, method)
        if is_coroutine(function):
            return await function(*args, **kwargs)
        return await self._threaded(instance.call, method, args, kwargs)

    async def _threaded(self, function: Callable[..., Any], *args: Any) -> Any:
        """In a service thread, on behalf of the same record."""
        context = contextvars.copy_context()
        future: Future[Any] = self._run(context.run, function, *args)
        return await asyncio.wrap_future(future)


def _late(name: str, seconds: float) -> ServiceError:
    return ServiceError(
        f"Service {name!r} did not answer within {seconds:g} s", hint="raise timeout=, or look at its log"
    )

"""Operators whose functions are async: `async_map`, and what map, flat_map, filter and process do with such ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sage.common.errors import PipelineError
from sage.core.api.function.async_functions import AsyncFunction
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.stream import Stream
from sage.core.api.units import parse_duration
from sage.core.graph.origin import Origin
from sage.core.graph.spec import FunctionKind, FunctionSpec, OperatorKind

if TYPE_CHECKING:
    from sage.core.api.datastream import DataStream

__all__ = ["AsyncMixin"]

T = TypeVar("T")
R = TypeVar("R")
Retry = RetryPolicy | int | Mapping[str, Any] | None


class AsyncMixin(Stream[T]):
    """The methods of DataStream that keep many records in flight."""

    @overload
    def async_map(
        self,
        function: AsyncFunction[T, R] | type[AsyncFunction[T, R]],
        *,
        timeout: float | str | None = ...,
        capacity: int | None = ...,
        ordered: bool = ...,
        retry: Retry = ...,
        name: str | None = ...,
        parallelism: int | None = ...,
        uid: str | None = ...,
    ) -> DataStream[R]: ...
    @overload
    def async_map(
        self,
        function: Callable[[T], Awaitable[R]],
        *,
        timeout: float | str | None = ...,
        capacity: int | None = ...,
        ordered: bool = ...,
        retry: Retry = ...,
        name: str | None = ...,
        parallelism: int | None = ...,
        uid: str | None = ...,
    ) -> DataStream[R]: ...
    def async_map(
        self,
        function: Any,
        *,
        timeout: float | str | None = None,
        capacity: int | None = None,
        ordered: bool = True,
        retry: Retry = None,
        name: str | None = None,
        parallelism: int | None = None,
        uid: str | None = None,
    ) -> DataStream[Any]:
        """One record in, one out, by a function that waits: an async function or an AsyncFunction (Flink's async I/O).

        Up to `capacity` records of a subtask are in flight (default: `async.capacity`, 100); when that many are, the
        stream waits. Results keep the order of their records, or with `ordered=False` go on as they come; watermarks
        keep their place either way. `timeout` is for all attempts at a record together ("5s", or milliseconds; default:
        `async.timeout`); `retry` is a RetryPolicy or a number of attempts. In-flight records are part of checkpoints.

        >>> import asyncio
        >>> from sage.core.api import LocalEnvironment
        >>> async def double(x):
        ...     await asyncio.sleep(0.01)
        ...     return 2 * x
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([1, 2, 3]).async_map(double, timeout="5s", capacity=50).print()
        >>> _ = env.submit()
        2
        4
        6
        """
        origin = Origin.of_caller()
        spec = FunctionSpec.checked(function, FunctionKind.ASYNC, origin, asynchronous=True)
        return self._async(
            spec,
            name or "async_map",
            parallelism,
            uid,
            capacity=capacity,
            timeout=timeout,
            ordered=ordered,
            retry=RetryPolicy.of(retry),
        )

    def _each(
        self, kind: OperatorKind, function: Any, name: str | None, parallelism: int | None, uid: str | None
    ) -> DataStream[Any]:
        """A call for each record, or an operator that keeps many in flight when the function is async."""
        spec = FunctionSpec.checked(function, kind, Origin.of_caller(), asynchronous=True)
        if spec.is_async:
            return self._async(spec, name or str(kind), parallelism, uid)
        return self._plain(self._add(kind, function, name, parallelism, uid))

    def _async(
        self,
        spec: FunctionSpec,
        name: str,
        parallelism: int | None,
        uid: str | None,
        *,
        capacity: int | None = None,
        timeout: float | str | None = None,
        ordered: bool = True,
        retry: RetryPolicy | None = None,
    ) -> DataStream[Any]:
        settings = self._env._settings.asynchronous
        origin = spec.origin
        wanted = settings.capacity if capacity is None else capacity
        if not _is_count(wanted):
            raise PipelineError(f"capacity must be a whole number of at least 1 ({origin})", cause=f"got {capacity!r}")
        try:
            seconds = settings.timeout if timeout is None else parse_duration(timeout)
        except ValueError as error:
            raise PipelineError(f"timeout is no duration ({origin})", cause=str(error)) from error
        if seconds is not None and seconds <= 0:
            raise PipelineError(f"timeout must be longer than nothing ({origin})", cause=f"got {timeout!r}")
        from sage.core.runtime.operators.async_factory import AsyncFactory  # asyncio is for pipelines that use it

        factory = AsyncFactory(spec, wanted, seconds, ordered, RetryPolicy.of(retry))
        label = f"{spec.label()}, up to {wanted} in flight"
        return self._operator(name, factory, label=label, parallelism=parallelism, uid=uid, origin=origin)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

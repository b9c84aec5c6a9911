"""Async functions as operators: many records in flight at a time (after Flink's "Asynchronous I/O" and its
AsyncWaitOperator).

Records in flight are part of checkpoints, those that are done with their results: after a failure only what was not
answered is asked again. When `capacity` records are in flight the task takes no more input, so back-pressure reaches
the source.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from sage.core.api.function.async_functions import AsyncFunction
from sage.core.api.function.contexts import ProcessContext
from sage.core.api.output_tag import OutputTag, tag_name
from sage.core.graph.spec import FunctionKind, OperatorKind
from sage.core.runtime.events import Batch
from sage.core.runtime.operators.async_calls import AsyncCalls, Invocation
from sage.core.runtime.operators.async_factory import AsyncFactory
from sage.core.runtime.operators.async_queue import Call, CallQueue, OrderedQueue, UnorderedQueue
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.functions import NO_TIME, FunctionOperator, begin, many
from sage.core.runtime.positions import restored_origin

__all__ = ["AsyncOperator"]

_IN_FLIGHT = "async.in_flight"
_EXCESS = 4096  # a batch comes as a whole, and an operator before this one in the chain may make many of one


class AsyncOperator(FunctionOperator):
    """One subtask. Everything but the invocations themselves happens in the task's thread."""

    def __init__(self, settings: AsyncFactory) -> None:
        super().__init__(settings.function)
        self._settings = settings
        self._queue: CallQueue = OrderedQueue() if settings.ordered else UnorderedQueue()
        self._calls: AsyncCalls | None = None

    def open(self, context: OperatorContext) -> None:
        """Opens the function, then begins again what was in flight at the checkpoint."""
        function, state = context.function, context.operator_state
        run = f"{function.job}/{function.job_id}"
        self._origin = function.origin or restored_origin(state, function.operator_id, function.subtask_index, run)
        keyless = dataclasses.replace(function, keyed=None, operator_state=state, origin=None)
        super().open(dataclasses.replace(context, function=keyless))
        self.context = context
        invocation = self._invocation(self.bound.call)
        self._calls = AsyncCalls(function.job_id, self._origin, invocation, lambda: context.mailbox(self._arrived))
        self._restore()

    def process(self, batch: Batch, port: int) -> None:
        """Hands the records over. Waits only where far more came than there was room for."""
        begin(self.context.out, batch)
        records, times, position = batch.records, batch.timestamps, self._origin.position + 1
        if times is None:
            calls = [Call(record, None, number) for number, record in enumerate(records, position)]
        else:
            pairs = zip(records, times, strict=True)
            calls = [Call(record, time, number) for number, (record, time) in enumerate(pairs, position)]
        self._origin.position = position + len(calls) - 1
        self._start(calls)
        if not self._has_room():
            self.context.wait(self._has_room)

    def on_watermark(self, watermark: int) -> int | None:
        """Goes on behind the results of the records before it."""
        return self._event(watermark)

    def on_status(self, idle: bool) -> bool | None:
        """Goes on behind the results of the records before it."""
        return None if self._event(idle) is None else idle

    @property
    def pending(self) -> int:
        """See Operator."""
        return self._queue.pending

    @property
    def room(self) -> int:
        """See Operator."""
        return self._settings.capacity - self._queue.pending

    def snapshot(self, checkpoint_id: int) -> None:
        """What is in flight."""
        kept = []
        for call in self._queue.calls():
            answered = call.done and call.error is None
            kept.append(
                (call.record, call.time, call.position, answered, *((call.results, call.side) if answered else ()))
            )
        self.context.operator_state.put(_IN_FLIGHT, kept)

    def finish(self) -> None:
        """Waits for what is in flight."""
        self.context.wait(lambda: not len(self._queue))

    def close(self) -> None:
        """Cancels what runs, then closes the function."""
        if self._calls is not None:
            self._calls.close()
            self._calls = None
        super().close()

    def _has_room(self) -> bool:
        return self._queue.pending <= self._settings.capacity + _EXCESS

    def _start(self, calls: list[Call]) -> None:
        assert self._calls is not None, "the operator is open"
        put = self._queue.put
        for call in calls:
            put(call)
        self._calls.start(calls)

    def _event(self, event: int | bool) -> int | bool | None:
        if not len(self._queue):
            return event
        self._queue.put_event(event)
        return None

    def _arrived(self) -> None:
        """Results are there: hand on what may go on."""
        assert self._calls is not None, "calls come back while the operator is open"
        self._calls.taken()
        finished, completed = self._calls.finished, self._queue.completed
        while finished:
            completed(finished.popleft())
        self._emit()

    def _emit(self) -> None:
        out = self.context.out
        for item in self._queue.ready():
            if not isinstance(item, Call):
                if isinstance(item[0], bool):
                    out.idle(item[0])
                else:
                    out.watermark(item[0])
                continue
            if item.error is not None:
                self._fail(item, item.error)
            out.records.extend(item.results)
            if out.timed:
                time = NO_TIME if item.time is None else item.time
                out.timestamps.extend([time] * len(item.results))
            for tag, value in item.side:
                out.output(tag, value, item.time)

    def _fail(self, call: Call, error: BaseException) -> None:
        """Raises the function's error, with the record at hand; what waits behind goes on when the job does."""
        record, time = call.record, call.time  # noqa: F841 - for the failure's message
        self.context.mailbox(self._emit)
        raise error

    def _restore(self) -> None:
        begun: list[Call] = []
        for record, time, position, answered, *given in self.context.operator_state.get(_IN_FLIGHT):
            call = Call(record, time, position)
            if time is not None:
                self.context.out.timed = True
            if answered:
                call.results, call.side = list(given[0]), [(tag, value) for tag, value in given[1]]
                call.done = True
                self._queue.put(call)
                self._queue.completed(call)
            else:
                begun.append(call)
                self._start([call])
        if begun or len(self._queue):
            self.context.mailbox(self._emit)

    async def _late(self, call: Call) -> None:
        """The function may have an answer for a record whose time is up; else it is an error."""
        instance = self.bound.instance
        if not isinstance(instance, AsyncFunction):
            raise TimeoutError(f"no result within {self._settings.timeout:g} s")
        given = instance.timeout(call.record)
        call.results.append(await given if inspect.isawaitable(given) else given)

    def _invocation(self, function: Callable[..., Any]) -> Invocation:
        """How a record becomes results, by the kind of operator."""
        begins, store = _how(self._spec.kind, function, self.context)
        settings = self._settings
        return Invocation(begins, store, self._late, settings.capacity, settings.timeout, settings.retry)


def _how(
    kind: OperatorKind | FunctionKind, function: Callable[..., Any], context: OperatorContext
) -> tuple[Callable[[Call], Awaitable[Any]], Callable[[Call, Any], None]]:
    """How a call begins, and where what it gives belongs."""
    if kind is OperatorKind.PROCESS:
        return lambda call: function(call.record, _CallContext(context, call), _CallCollector(call)), _nothing
    if inspect.isasyncgenfunction(function):
        return lambda call: _listed(function(call.record)), _many
    stores = {OperatorKind.FLAT_MAP: _many, OperatorKind.FILTER: _kept}
    store = stores.get(kind, _one) if isinstance(kind, OperatorKind) else _one
    if inspect.iscoroutinefunction(function):
        return lambda call: function(call.record), store
    return lambda call: _awaited(function(call.record)), store


def _nothing(call: Call, given: Any) -> None:
    """A process function has put its results down itself."""


def _one(call: Call, given: Any) -> None:
    call.results.append(given)


def _kept(call: Call, given: Any) -> None:
    if given:
        call.results.append(call.record)


def _many(call: Call, given: Any) -> None:
    call.results.extend(many(given))


async def _listed(values: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in values]


async def _awaited(value: Any) -> Any:
    """What a user's function gave, when it is there: coroutines, asyncio's futures, and those of service calls."""
    if isinstance(value, Future):
        return await asyncio.wrap_future(value)
    if inspect.isawaitable(value):
        return await value
    raise TypeError(
        f"an async operator's function must give something to wait for, but gave the {type(value).__name__} "
        f"{value!r:.40}: write `async def`, or use map()"
    )


class _CallContext(ProcessContext):
    """The context of one record that is in flight beside others."""

    __slots__ = ("_call",)

    def __init__(self, operator: OperatorContext, call: Call) -> None:
        super().__init__(operator)
        self._call = call
        self._time = call.time

    @property
    def key(self) -> Any:
        """None: async functions see no keys."""
        return None

    def output(self, tag: OutputTag[Any], value: Any) -> None:
        """Put a record out to a side output, when the function has ended."""
        self._call.side.append((tag_name(tag), value))


class _CallCollector:
    """Collects what one record puts out."""

    __slots__ = ("collect", "extend")

    def __init__(self, call: Call) -> None:
        self.collect = call.results.append
        self.extend = call.results.extend

"""Runs async functions in the job's event loop: start, retry, deadline, and the way back into the task's thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sage.core.api.function.call_origin import CallOrigin, origin_variable
from sage.core.api.function.retry import RetryPolicy
from sage.core.runtime.event_loop import shared_loop
from sage.core.runtime.operators.async_queue import Call

__all__ = ["AsyncCalls", "Invocation"]

_CANCELLING = 1.0  # seconds that cancelled functions get to end


@dataclass(slots=True, frozen=True)
class Invocation:
    """How a record is processed: `store(call, await begin(call))`. `late(call)` answers for one whose time is up, or
    raises. At most `capacity` run at a time; `timeout` (seconds) is for all attempts together."""

    begin: Callable[[Call], Awaitable[Any]]
    store: Callable[[Call, Any], None]
    late: Callable[[Call], Awaitable[None]]
    capacity: int
    timeout: float | None
    retry: RetryPolicy


class AsyncCalls:
    """The calls of one subtask.

    `finished` holds calls that are done; when something is put there, `arrived()` is called in the loop's thread, once
    until `taken()` says that the task has looked.
    """

    def __init__(self, job_id: str, origin: CallOrigin, invocation: Invocation, arrived: Callable[[], None]) -> None:
        self.finished: deque[Call] = deque()
        self._job_id = job_id
        self._origin = origin
        self._how = invocation
        self._work = self._once if invocation.retry.max_attempts == 1 else self._until_it_works
        self._arrived = arrived
        self._announced = False
        self._waiting: deque[Call] = deque()
        self._running: dict[Call, None] = {}
        self._deadlines: deque[Call] = deque()
        self._watching = False
        self._closed = False
        self._loop = shared_loop.acquire(job_id)

    def start(self, calls: Sequence[Call]) -> None:
        """Begin, each when there is room; from the task's thread."""
        self._loop.call_soon_threadsafe(self._start, calls)

    def taken(self) -> None:
        """The task is about to look at `finished`."""
        self._announced = False

    def close(self) -> None:
        """Cancel what runs, wait a moment for its end, and let the loop go."""
        ended = threading.Event()
        self._loop.call_soon_threadsafe(self._cancel, ended)
        ended.wait(_CANCELLING)
        shared_loop.release(self._job_id)

    def _start(self, calls: Sequence[Call]) -> None:
        self._waiting.extend(calls)
        self._fill()

    def _fill(self) -> None:
        """Begin what there is room for."""
        waiting, running = self._waiting, self._running
        create, work, capacity = self._loop.create_task, self._work, self._how.capacity
        while waiting and len(running) < capacity and not self._closed:
            call = waiting.popleft()
            running[call] = None
            call.task = create(work(call))
            if self._how.timeout is not None:
                self._watch(call, self._how.timeout)

    async def _once(self, call: Call) -> None:
        how = self._how
        self._announce_origin(call)
        try:
            how.store(call, await how.begin(call))
        except BaseException as error:
            await self._failed(call, error)
        self._done(call)

    async def _until_it_works(self, call: Call) -> None:
        how, attempt = self._how, 0
        self._announce_origin(call)
        try:
            while True:
                attempt += 1
                call.results.clear()
                call.side.clear()
                try:
                    given = await how.begin(call)
                    pause = how.retry.after_result(attempt, given)
                except Exception as error:
                    pause = how.retry.after_error(attempt, error)
                    if pause is None:
                        raise
                if pause is None:
                    break
                await asyncio.sleep(pause)
            how.store(call, given)
        except BaseException as error:
            await self._failed(call, error)
        self._done(call)

    async def _failed(self, call: Call, error: BaseException) -> None:
        """What it put out so far does not count. A deadline that has passed is the function's to answer."""
        call.results.clear()
        call.side.clear()
        if self._closed:
            raise error
        if call.timed_out:
            try:
                await self._how.late(call)
            except BaseException as raised:
                call.error = raised
        elif isinstance(error, asyncio.CancelledError):
            call.error = RuntimeError("the function was cancelled from within")
        else:
            call.error = error

    def _done(self, call: Call) -> None:
        call.done = True
        call.task = None
        del self._running[call]
        if self._waiting:
            self._fill()
        self.finished.append(call)
        if not self._announced:
            self._announced = True
            self._loop.call_soon(self._arrived)  # behind all that is done by now

    def _announce_origin(self, call: Call) -> None:
        """Each asyncio task has variables of its own."""
        origin = self._origin
        origin_variable.set(CallOrigin(origin.run, origin.operator_id, origin.subtask, call.position))

    def _watch(self, call: Call, timeout: float) -> None:
        """All calls have the same time, so that the oldest is due first. Those that are done are swept out."""
        call.deadline = self._loop.time() + timeout
        deadlines = self._deadlines
        deadlines.append(call)
        while deadlines[0].done:
            deadlines.popleft()
        if len(deadlines) > 2 * len(self._running) + 64:
            self._deadlines = deque(known for known in deadlines if not known.done)
        if not self._watching:
            self._watching = True
            self._loop.call_at(call.deadline, self._expire)

    def _expire(self) -> None:
        """Cancel what is overdue."""
        now, deadlines = self._loop.time(), self._deadlines
        while deadlines and (deadlines[0].done or deadlines[0].deadline <= now):
            call = deadlines.popleft()
            if call.task is not None and not call.done:
                call.timed_out = True
                call.task.cancel()
        self._watching = bool(deadlines) and not self._closed
        if self._watching:
            self._loop.call_at(deadlines[0].deadline, self._expire)

    def _cancel(self, ended: threading.Event) -> None:
        self._closed = True
        tasks = [call.task for call in self._running if call.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            waiting = asyncio.ensure_future(asyncio.wait(tasks), loop=self._loop)
            waiting.add_done_callback(lambda _: ended.set())
        else:
            ended.set()

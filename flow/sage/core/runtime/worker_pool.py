"""Threads for service calls that do not hold the program: a call that hangs is left behind when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from sage.core.runtime.answer import Answer

__all__ = ["WorkerPool"]

_Call: TypeAlias = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class WorkerPool:
    """At most `limit` daemon threads, started when they are needed.

    Unlike ThreadPoolExecutor it takes calls while the interpreter waits for its last threads, and joins nothing.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._unfinished = 0  # calls that were put and have not ended

    def submit(self, function: Callable[..., Any], *args: Any) -> Answer[Any]:
        """The outcome of `function(*args)`, run in one of the threads."""
        future: Answer[Any] = Answer()
        with self._lock:
            self._unfinished += 1
            if self._started < min(self._unfinished, self._limit):
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put((future, function, args))
        return future

    def close(self) -> None:
        """Drop calls that did not start, let the threads end after the one they are at."""
        try:
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call[0].cancel()
        except Empty:
            with self._lock:
                for _ in range(self._started):
                    self._calls.put(None)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            future, function, args = call
            if future.set_running_or_notify_cancel():
                try:
                    outcome = partial(future.set_result, function(*args))
                except BaseException as error:
                    outcome = partial(future.set_exception, error)
                self._ended()
                outcome()
                del outcome
            else:
                self._ended()
            del call, future, function, args

    def _ended(self) -> None:
        """Before anybody hears of a call's outcome: who then makes the next call finds this thread free."""
        with self._lock:
            self._unfinished -= 1

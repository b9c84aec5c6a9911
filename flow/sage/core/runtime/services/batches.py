"""Micro-batches: calls that come while a batch runs make up the next one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sage.common.errors import ServiceError

__all__ = ["Batcher"]


class Batcher:
    """Collects the calls of one method of one instance. No call waits for others: where nothing runs it goes at once.

    `function` takes a list of at most `limit` items and gives as many results, in order; a result that is an exception
    is that item's. `run` runs a call in another thread.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        limit: int,
        run: Callable[[Callable[[], None]], object],
        name: str,
    ) -> None:
        self._function = function
        self._limit = limit
        self._run = run
        self._name = name
        self._waiting: deque[tuple[Any, Future[Any]]] = deque()
        self._running = False
        self._lock = threading.Lock()

    def submit(self, item: Any) -> Future[Any]:
        """The answer for one item."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((item, future))
            if self._running:
                return future
            self._running = True
        self._run(self._work)
        return future

    def _work(self) -> None:
        while batch := self._next():
            try:
                results = list(self._function([item for item, _ in batch]))
                if len(results) != len(batch):
                    raise ServiceError(
                        f"{self._name} gave {len(results)} results for {len(batch)} items",
                        hint="a batch method returns one result for each item, in order",
                    )
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _next(self) -> list[tuple[Any, Future[Any]]]:
        """The next batch, of what is still wanted; with nothing left the work is over."""
        with self._lock:
            batch: list[tuple[Any, Future[Any]]] = []
            while self._waiting and len(batch) < self._limit:
                entry = self._waiting.popleft()
                if entry[1].set_running_or_notify_cancel():
                    batch.append(entry)
            if not batch:
                self._running = False
            return batch

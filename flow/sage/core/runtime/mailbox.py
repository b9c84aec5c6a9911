"""Brings calls of other threads into a task's thread: timers, results of async work, triggers of checkpoints."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sage.core.runtime.events import JobAborted

__all__ = ["Mailbox"]

_POLL = 0.05  # seconds; how soon a waiting operator sees that the job was aborted


class Mailbox:
    """Calls wait here in order. `post` is for any thread, everything else for the task's own."""

    def __init__(self, aborted: threading.Event) -> None:
        self._wake: Callable[[], None] | None = None
        self._before_wait: Callable[[], None] | None = None
        self._calls: deque[tuple[object, Callable[[], None]]] = deque()
        self._posted = threading.Condition()
        self._aborted = aborted

    def __bool__(self) -> bool:
        return bool(self._calls)

    def belongs_to(self, wake: Callable[[], None] | None, before_wait: Callable[[], None]) -> None:
        """The task's ways: `wake` makes its input return early, `before_wait` sends on what is due while an operator
        waits."""
        self._wake, self._before_wait = wake, before_wait

    def post(self, call: Callable[[], None], owner: object = None) -> None:
        """Run `call` in the task's thread soon. `owner`: the operator that may wait for it."""
        with self._posted:
            self._calls.append((owner, call))
            self._posted.notify_all()
        if self._wake is not None:
            self._wake()

    def run(self, until: Callable[[], bool] | None = None) -> bool:
        """Run everything that waits now, or what comes before `until()` is true; True when there was anything."""
        ran = False
        while self._calls:
            self._calls.popleft()[1]()
            ran = True
            if until is not None and until():
                break
        return ran

    def sleep(self, seconds: float) -> bool:
        """Until a call waits, at most so long; True when one does. Raises JobAborted."""
        with self._posted:
            if self._aborted.is_set():
                raise JobAborted
            if not self._calls:
                self._posted.wait(min(seconds, _POLL))
            return bool(self._calls)

    def serve(self, ready: Callable[[], bool], *, operators: bool = True) -> None:
        """Run calls as they come until `ready()`: a task that takes no input any more. Raises JobAborted.

        Without `operators` the calls of operators stay: nothing may be emitted behind the last barrier.
        """
        if not operators:
            self.wait(None, ready)
        while not ready():
            if not self.run():
                with self._posted:
                    if self._aborted.is_set():
                        raise JobAborted
                    if not self._calls:
                        self._posted.wait(_POLL)

    def wait(self, owner: object, ready: Callable[[], bool]) -> None:
        """Run the calls of `owner` until `ready()`; those of others stay, so that no record overtakes another.

        Raises JobAborted.
        """
        while not ready():
            call = self._next(owner)
            if call is not None:
                call()
            elif self._before_wait is not None:
                self._before_wait()

    def _next(self, owner: object) -> Callable[[], None] | None:
        """The first call of `owner`; None when none came for a while."""
        with self._posted:
            if self._aborted.is_set():
                raise JobAborted
            for index, (whose, call) in enumerate(self._calls):
                if whose is owner:
                    del self._calls[index]
                    return call
            self._posted.wait(_POLL)
        return None

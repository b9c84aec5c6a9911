"""What `call_service_async` gives: a Future for threads that async functions can await as well."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["Answer", "chained"]

T = TypeVar("T")


class Answer(Future[T]):
    """`answer.result(timeout)` in a thread, `await answer` in an async function."""

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


def chained(task: asyncio.Task[T], answer: Future[T]) -> None:
    """The task's outcome is the answer's."""

    def done(task: asyncio.Task[T]) -> None:
        with suppress(InvalidStateError):
            if task.cancelled():
                answer.cancel()
                answer.set_running_or_notify_cancel()
                return
            error = task.exception()
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

    task.add_done_callback(done)

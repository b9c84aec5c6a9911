"""What every function of a pipeline has: a life (`open`, `close`), a context, services.

The work itself is a method named `execute` or `process`; each kind of function (`MapFunction`, `SinkFunction`, …) says
what it takes and gives. Subclasses need not call `super().__init__()`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sage.common.errors import ServiceError
from sage.core.api.function.service_calls import AsyncServiceCalls, ServiceCalls, ServiceProvider

__all__ = ["BaseFunction", "FunctionContext", "StopSignal"]


class StopSignal(Exception):  # noqa: N818 - a signal to the engine, not a failure
    """Ends a source: returned or raised by its `execute`. `None` never ends a stream: it is a record."""


@dataclass(slots=True, frozen=True)
class FunctionContext:
    """Where a function runs: the job, the operator, and which of its parallel subtasks this is (counted from 0)."""

    job_id: str
    job_name: str
    operator: str
    operator_id: str
    subtask_index: int
    parallelism: int
    services: ServiceProvider
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_stopping(self) -> bool:
        """True once the job was asked to stop: a source that waits for data should look at it and return."""
        return self.stopping.is_set()


class BaseFunction:
    """The base of all function classes.

    The engine calls `open(context)` once before the first record and `close()` once after the last, also after a
    failure; both in the thread that calls `execute`. Give an operator the class, and each parallel subtask makes its
    own instance; give it an instance, and with a parallelism above 1 each subtask works on a deep copy.
    """

    _context: FunctionContext | None = None

    def open(self, context: FunctionContext) -> None:
        """Prepare what is costly: a client, a model, a file. Does nothing unless overridden."""

    def close(self) -> None:
        """Let go of what `open` prepared. Does nothing unless overridden."""

    @property
    def context(self) -> FunctionContext:
        """The context given to `open`. Raises ServiceError before the job runs."""
        if self._context is None:
            raise ServiceError(
                f"{type(self).__name__} is not running",
                cause="context and services exist between open() and close() of a job",
                hint="use them in open, execute or process, not in __init__",
            )
        return self._context

    @property
    def call_service(self) -> ServiceCalls:
        """`self.call_service["name"].method(…)` or `self.call_service("name", …, method="method", timeout=5.0)`."""
        return ServiceCalls(self.context.services)

    @property
    def call_service_async(self) -> AsyncServiceCalls:
        """Like `call_service`, but every call returns a `concurrent.futures.Future` at once."""
        return AsyncServiceCalls(self.context.services)

"""What every function of a pipeline has: a life (`open`, `close`), a context, services.

The work itself is a method named `execute` or `process`; each kind of function (`MapFunction`, `SinkFunction`, …) says
what it takes and gives. Subclasses need not call `super().__init__()`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError, ServiceError
from sage.core.api.function.call_origin import CallOrigin
from sage.core.api.function.service_calls import AsyncServiceCalls, ServiceCalls, ServiceProvider

if TYPE_CHECKING:
    from sage.core.api.state import (
        AggregatingState,
        AggregatingStateDescriptor,
        ListState,
        ListStateDescriptor,
        MapState,
        MapStateDescriptor,
        ReducingState,
        ReducingStateDescriptor,
        ValueState,
        ValueStateDescriptor,
    )
    from sage.core.state.base import KeyedStateBackend, OperatorStateBackend

__all__ = ["BaseFunction", "FunctionContext", "StopSignal"]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
IN = TypeVar("IN")
ACC = TypeVar("ACC")
OUT = TypeVar("OUT")


class StopSignal(Exception):  # noqa: N818 - a signal to the engine, not a failure
    """Ends a source: returned or raised by its `execute`. `None` never ends a stream: it is a record."""


@dataclass(slots=True, frozen=True)
class FunctionContext:
    """Where a function runs: the job, the operator, and which of its parallel subtasks this is (counted from 0).

    It also gives the function its state. Keyed state (`get_state`, `get_list_state`, …) exists on keyed streams: what a
    handle reads and writes belongs to the key of the record that is being processed. Ask for handles in `open`. State
    of the subtask (`get_operator_list_state`, `get_union_list_state`) exists everywhere.
    """

    job_id: str
    job_name: str
    operator: str
    operator_id: str
    subtask_index: int
    parallelism: int
    services: ServiceProvider
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    keyed: KeyedStateBackend | None = field(default=None, repr=False)
    operator_state: OperatorStateBackend | None = field(default=None, repr=False)
    job: str = ""  # the job's stable identity, the same in every run
    origin: CallOrigin | None = field(default=None, repr=False)  # where it is in its records, if it may call services

    def get_state(self, descriptor: ValueStateDescriptor[T]) -> ValueState[T]:
        """One value for each key. Raises PipelineError on a stream without keys, as all of keyed state does."""
        state: ValueState[T] = self._keyed_state(descriptor)
        return state

    def get_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """A list for each key."""
        state: ListState[T] = self._keyed_state(descriptor)
        return state

    def get_map_state(self, descriptor: MapStateDescriptor[K, V]) -> MapState[K, V]:
        """A map for each key."""
        state: MapState[K, V] = self._keyed_state(descriptor)
        return state

    def get_reducing_state(self, descriptor: ReducingStateDescriptor[T]) -> ReducingState[T]:
        """For each key, one value into which a function folds what is added."""
        state: ReducingState[T] = self._keyed_state(descriptor)
        return state

    def get_aggregating_state(self, descriptor: AggregatingStateDescriptor[IN, ACC, OUT]) -> AggregatingState[IN, OUT]:
        """For each key, an accumulator into which an AggregateFunction folds what is added."""
        state: AggregatingState[IN, OUT] = self._keyed_state(descriptor)
        return state

    def get_operator_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """A list of this subtask; dealt out evenly when the job is restored with another parallelism."""
        state: ListState[T] = self._operator_list(descriptor, "list")
        return state

    def get_union_list_state(self, descriptor: ListStateDescriptor[T]) -> ListState[T]:
        """A list of this subtask; after a restore every subtask has the lists of all."""
        state: ListState[T] = self._operator_list(descriptor, "union")
        return state

    def _keyed_state(self, descriptor: Any) -> Any:
        from sage.core.state.handles import keyed_state

        if self.keyed is None:
            raise PipelineError(
                f"{self.operator!r} has no keyed state",
                cause=f"state {getattr(descriptor, 'name', descriptor)!r} needs a key, and this stream has none",
                hint="call key_by(...) before the operator, or use get_operator_list_state",
            )
        return keyed_state(self.keyed, descriptor)

    def _operator_list(self, descriptor: Any, mode: str) -> Any:
        from sage.core.state.handles import operator_list_state

        if self.operator_state is None:
            raise PipelineError(
                f"{self.operator!r} has no operator state here", hint="ask for it in open(context) of a running job"
            )
        return operator_list_state(self.operator_state, descriptor, mode)

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

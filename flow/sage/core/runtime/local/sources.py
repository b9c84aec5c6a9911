"""What the source tasks of a job read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.checkpoint.in_flight import deal
from sage.core.connectors.base import ReaderContext
from sage.core.graph.logical import LogicalNode
from sage.core.graph.plan import TaskPlan
from sage.core.graph.source import SourceKind, SourceSpec
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.feedback import FeedbackInput, FeedbackLoops
from sage.core.runtime.inputs import CollectionInput, ReaderInput, RecordCount, calls
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.operators.source import BadRecords, SplitInput
from sage.core.runtime.settings import RestartKind, RuntimeSettings
from sage.core.state.base import OperatorStateBackend

__all__ = ["SourceInput", "SubtaskSource"]

SourceInput: TypeAlias = FeedbackInput | CollectionInput | ReaderInput | SplitInput


@dataclass(slots=True, frozen=True)
class SubtaskSource:
    """The source of one subtask. `function_context` is what the source's own function sees."""

    task: TaskPlan
    number: int
    job: JobContext
    loops: FeedbackLoops
    function_context: FunctionContext

    def input(self, source: SourceSpec, state: OperatorStateBackend) -> SourceInput:
        """The input of its task, at the position that is in the state."""
        if source.kind is SourceKind.FUTURE:
            return self._feedback(str(source.data))
        count = RecordCount(state, self.number, self.task.parallelism)
        if source.kind is SourceKind.CONNECTOR:
            return SplitInput(source.data, self._reader_context, state, self.job.stopping.is_set)
        if source.kind is SourceKind.COLLECTION:
            return CollectionInput(source.data, self.job.stopping, count)
        return ReaderInput(
            self._iterator(source),
            name=self.task.head.node.name,
            capacity=2 * self.job.settings.buffer_size,
            stopping=self.job.stopping,
            aborted=self.job.aborted,
            count=None if source.kind is SourceKind.FUNCTION and not source.bounded else count,
        )

    def _feedback(self, name: str) -> FeedbackInput:
        """The beginning of a loop, with what was on its way back when the checkpoint was made."""
        beginning = FeedbackInput(self.loops.loop(name), self.job.stopping, self.job.aborted)
        parts = self.job.states.in_flight(self.task.head.node.uid)
        beginning.restore(deal(parts, self.number, self.task.parallelism, lambda port, batch: None))
        return beginning

    def _reader_context(self, wake: Callable[[], None]) -> ReaderContext:
        stopping, node = self.job.stopping.is_set, self.task.head.node
        bad_records = BadRecords(self.job.on_error, node.name, node.uid, self.number)
        return ReaderContext(self.number, self.task.parallelism, self.job.clock, stopping, wake, bad_records)

    def _iterator(self, source: SourceSpec) -> Callable[[], Iterator[Any]]:
        """Makes the iterator of a source; called in the thread that reads it."""
        if source.function is None:
            return partial(_iterated, source.data, self.task.head.node, self.job.attempt)
        bound = _as_new(source.function, self.job.settings).bind(self.number, self.task.parallelism)
        records = partial(calls, bound.call) if source.kind is SourceKind.FUNCTION else lambda: iter(bound.call())
        if bound.instance is None:
            return records
        return partial(_framed, bound.instance, self.function_context, records)


def _iterated(data: Iterable[Any], node: LogicalNode, attempt: int) -> Iterator[Any]:
    """From its first record; an iterator can be read only once."""
    iterator = iter(data)
    if attempt > 0 and iterator is data:
        raise PipelineError(
            f"Source {node.name!r} cannot be read again ({node.origin})",
            cause=f"a {type(data).__name__} gives its records only once, and the job has started again",
            hint="pass a list, or a function that returns the iterator",
        )
    return iterator


def _as_new(function: FunctionSpec, settings: RuntimeSettings) -> FunctionSpec:
    """A source's function as the user made it: where the job may start again, each attempt reads a copy."""
    if settings.restart.kind is RestartKind.NONE or isinstance(function.target, type):
        return function
    try:
        return replace(function, target=copy.deepcopy(function.target))
    except Exception:  # what cannot be copied is used as it is
        return function


def _framed(instance: BaseFunction, context: FunctionContext, records: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """The records between `open` and `close` of their source, all in one thread."""
    instance._context = context
    try:
        instance.open(context)
        yield from records()
    finally:
        instance.close()

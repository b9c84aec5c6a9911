"""One subtask: takes batches from its input, runs its chain, sends what comes out. Knows no thread and no network.

Batches are processed in slices that take a few milliseconds: a slow function sees one record at a time and its results
go on at once; a quick one sees a thousand, so that nothing but the function itself costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.api.function.functions import SinkFunction
from sage.core.graph.plan import TaskPlan
from sage.core.runtime.chain import Chain
from sage.core.runtime.events import Batch, ControlEvent, EndOfStream, Item, JobAborted, Records
from sage.core.runtime.failure import operator_failed
from sage.core.runtime.inputs import TaskInput
from sage.core.runtime.output import KeySelectionFailed, Output

__all__ = ["OpenFunction", "Task"]

QUICK_S = 0.001  # a slice that takes less is doubled
SLOW_S = 0.004  # one that takes more is cut


@dataclass(slots=True, frozen=True)
class OpenFunction:
    """A function object with the operator that it belongs to."""

    instance: BaseFunction
    context: FunctionContext


@dataclass(slots=True, frozen=True)
class _Sink:
    instance: SinkFunction[object]
    function: OpenFunction


class Task:
    """A subtask. `run` is called once, in the thread (or process) that is to do the work."""

    def __init__(
        self,
        plan: TaskPlan,
        subtask: int,
        *,
        source: TaskInput,
        chain: Chain,
        outputs: list[Output],
        functions: list[OpenFunction],
        slice_limit: int,
        timeout: float,
        aborted: threading.Event,
        preferring: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.subtask = subtask
        self.chain = chain
        self.input = source
        self._outputs = outputs
        self._functions = functions
        self._sinks = [_Sink(f.instance, f) for f in functions if isinstance(f.instance, SinkFunction)]
        self._slice = 1
        self._slice_limit = slice_limit
        self._timeout = timeout
        self._aborted = aborted
        self._preferring = preferring
        self._opened: list[OpenFunction] = []
        self._flushed_at = time.monotonic()
        self._unflushed = False

    def run(self) -> PipelineError | None:
        """Work until the input ends. Returns the error that ended it early; None also when the job was aborted."""
        failed: PipelineError | None = None
        try:
            self._open()
            self._work()
        except JobAborted:
            failed = None
        except BaseException as error:  # a user's function may raise anything, SystemExit too
            failed = self._explained(error)
        finally:
            self.input.close()
            failed = self._close(failed)
        return failed

    def _open(self) -> None:
        for function in self._functions:
            self._opened.append(function)
            function.instance._context = function.context
            try:
                function.instance.open(function.context)
            except BaseException as error:
                raise self._in_phase(function, error, "open") from error

    def _work(self) -> None:
        while True:
            waiting = self._timeout if self._has_unsent() else None
            item = self._take(waiting)
            if item is None:
                self._flush()
            elif isinstance(item, list):
                self._process(item)
            elif isinstance(item, Batch):
                self._process(item.records)
            else:
                self._control(item)
                if isinstance(item, EndOfStream):
                    return

    def _take(self, timeout: float | None) -> Item | None:
        try:
            return self.input.take(self._slice, timeout)
        except JobAborted:
            raise
        except BaseException as error:
            node = self.plan.head.node
            self.chain.operators[0].errors += 1
            raise operator_failed(node.name, error, node.origin, phase="the source") from error

    def _process(self, batch: Records) -> None:
        position = 0
        while position < len(batch):
            if self._aborted.is_set():
                raise JobAborted
            whole = position == 0 and len(batch) <= self._slice
            part = batch if whole else batch[position : position + self._slice]
            started = time.monotonic()
            self.chain.run(part)
            for output in self._outputs:
                output.flush_if_due()
            ended = time.monotonic()
            self._unflushed = bool(self._sinks)
            if self._unflushed and ended - self._flushed_at >= self._timeout:
                self._flush()
            self._adapt(len(part), ended - started)
            position += len(part)

    def _adapt(self, size: int, seconds: float) -> None:
        """Slices that take between QUICK_S and SLOW_S; time spent waiting for receivers counts."""
        if seconds < QUICK_S and size >= self._slice:
            self._slice = min(self._slice_limit, self._slice * 2)
        elif seconds > SLOW_S:
            self._slice = max(1, min(self._slice, int(size * QUICK_S / seconds)))
        self._preferring(self._slice)

    def _control(self, event: ControlEvent) -> None:
        for output in self._outputs:
            output.broadcast(event)
        self._flush()

    def _has_unsent(self) -> bool:
        return self._unflushed or any(output.buffer for output in self._outputs)

    def _flush(self) -> None:
        for output in self._outputs:
            output.flush()
        for sink in self._sinks:
            try:
                sink.instance.flush()
            except BaseException as error:
                raise self._in_phase(sink.function, error, "flush") from error
        self._flushed_at = time.monotonic()
        self._unflushed = False

    def _close(self, failed: PipelineError | None) -> PipelineError | None:
        """Close every function that was opened; the first error counts."""
        for function in self._opened:
            try:
                function.instance.close()
            except BaseException as error:
                failed = failed or self._in_phase(function, error, "close")
        return failed

    def _in_phase(self, function: OpenFunction, error: BaseException, phase: str) -> PipelineError:
        operator = next(o for o in self.plan.head.walk() if o.node.name == function.context.operator)
        failed = operator_failed(operator.node.name, error, operator.node.origin, phase=f"{phase}()")
        failed.__cause__ = error
        return failed

    def _explained(self, error: BaseException) -> PipelineError:
        """The error with the operator's name and the user's line."""
        if isinstance(error, KeySelectionFailed):
            cause = error.__cause__ or error
            explained = operator_failed("key_by", cause, error.key.origin, record=error.record)
            explained.__cause__ = cause
            return explained
        failure = self.chain.failure(error.__traceback__)
        if failure is None:
            return error if isinstance(error, PipelineError) else _unexplained(self.plan.name, error)
        node, key = failure.operator.plan.node, failure.operator.plan.key
        by_key = failure.in_key and key is not None
        origin = key.origin if by_key and key is not None else node.origin
        explained = operator_failed("key_by" if by_key else node.name, error, origin, record=failure.record)
        explained.__cause__ = error
        return explained


def _unexplained(name: str, error: BaseException) -> PipelineError:
    failed = PipelineError(f"Task {name!r} failed", cause=f"{type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed

"""The functions and operators of one subtask, from `open` to `close`; errors name the operator and the phase."""

from __future__ import annotations

from dataclasses import dataclass

from sage.common.errors import PipelineError
from sage.core.api.function.base_function import BaseFunction, FunctionContext
from sage.core.api.function.functions import SinkFunction
from sage.core.runtime.chain import Chain
from sage.core.runtime.operators.base import Operator
from sage.core.runtime.stages import OperatorStage
from sage.core.runtime.task_errors import in_phase

__all__ = ["Lifecycle", "OpenFunction"]


@dataclass(slots=True, frozen=True)
class OpenFunction:
    """A function object with the operator that it belongs to."""

    instance: BaseFunction
    context: FunctionContext


@dataclass(slots=True, frozen=True)
class _Sink:
    instance: SinkFunction[object]
    function: OpenFunction


class Lifecycle:
    """Used by the task's thread only. Whatever was begun to be opened is closed, once."""

    def __init__(self, chain: Chain, functions: list[OpenFunction]) -> None:
        self._chain = chain
        self._functions = functions
        self._sinks = [_Sink(f.instance, f) for f in functions if isinstance(f.instance, SinkFunction)]
        self._flushed = [stage for stage in chain.operator_stages if type(stage.operator).flush is not Operator.flush]
        self._opened: list[OpenFunction] = []
        self._opened_stages: list[OperatorStage] = []

    @property
    def holds_back(self) -> bool:
        """Whether anything here may hold records back until it is flushed."""
        return bool(self._sinks or self._flushed)

    def open(self) -> None:
        """Functions, then operators, those below first: an operator may emit when it opens. Raises PipelineError."""
        for function in self._functions:
            self._opened.append(function)
            function.instance._context = function.context
            try:
                function.instance.open(function.context)
            except BaseException as error:
                raise self._in_phase(function, error, "open") from error
        for stage in reversed(self._chain.operator_stages):
            self._opened_stages.append(stage)
            try:
                stage.operator.open(stage.context)
                stage.drain()
            except BaseException as error:
                raise in_phase(stage.operators[0].plan, error, "open") from error

    def flush_operators(self) -> None:
        """What operators hold back goes on. Raises PipelineError."""
        for stage in self._flushed:
            try:
                stage.operator.flush()
                stage.drain()
            except BaseException as error:
                raise in_phase(stage.operators[0].plan, error, "flush") from error

    def flush_sinks(self) -> None:
        """What sink functions hold back goes out. Raises PipelineError."""
        for sink in self._sinks:
            try:
                sink.instance.flush()
            except BaseException as error:
                raise self._in_phase(sink.function, error, "flush") from error

    def close(self) -> PipelineError | None:
        """Close all that was opened, whichever fails; the first error."""
        failed: PipelineError | None = None
        for function in self._opened:
            try:
                function.instance.close()
            except BaseException as error:
                failed = failed or self._in_phase(function, error, "close")
        for stage in self._opened_stages:
            try:
                stage.operator.close()
            except BaseException as error:
                failed = failed or in_phase(stage.operators[0].plan, error, "close")
        return failed

    def close_state(self) -> PipelineError | None:
        """Let go of keyed state; the first error."""
        failed: PipelineError | None = None
        for operator in self._chain.operators:
            try:
                if operator.keyed is not None:
                    operator.keyed.close()
            except BaseException as error:
                failed = failed or in_phase(operator.plan, error, "close")
        return failed

    def _in_phase(self, function: OpenFunction, error: BaseException, phase: str) -> PipelineError:
        operators = (operator.plan for operator in self._chain.operators)
        return in_phase(next(o for o in operators if o.node.uid == function.context.operator_id), error, phase)

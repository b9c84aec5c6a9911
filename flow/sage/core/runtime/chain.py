"""Fused operators: one generated function takes each record of a batch through the whole chain.

For `map → filter → map` the generated loop is what a person would write:

    for v0 in batch:
        v1 = f1(v0)
        if f2(v1):
            n2 += 1
            v3 = f3(v1)
            e0(v3)

so that a record costs three calls and nothing else. Records keep their order, and a record passes all operators before
the next one starts. When a user's function raises, the line of the generated function tells which operator it was and
its local variables which record. A second version of the function times each operator; it runs on a sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any

from sage.core.api.function.functions import ProcessContext
from sage.core.graph.origin import GENERATED
from sage.core.graph.plan import PhysicalOperator
from sage.core.graph.spec import OperatorKind
from sage.core.runtime.events import Records
from sage.core.runtime.output import Output

__all__ = ["Chain", "ChainOperator", "Failure"]


class RecordBuffer(list[Any]):
    """What a ProcessFunction puts out for one record."""

    __slots__ = ()
    collect = list.append

    def drain(self) -> Records:
        """The records so far; the buffer is empty afterwards."""
        records = self[:]
        self.clear()
        return records


@dataclass(slots=True)
class ChainOperator:
    """An operator as the generated code needs it: what it calls, what is fused below, which outputs it feeds."""

    plan: PhysicalOperator
    call: Callable[..., Any]
    key: Callable[[Any], Any] | None
    context: ProcessContext | None
    children: list[ChainOperator] = field(default_factory=list)
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    busy_s: float = 0.0

    @property
    def kind(self) -> OperatorKind:
        return self.plan.node.kind


@dataclass(slots=True, frozen=True)
class Failure:
    """Which operator (or its key selector) raised, and at which record."""

    operator: ChainOperator
    in_key: bool
    record: Any


class Chain:
    """The operators of one subtask, `operators[0]` the head, compiled."""

    def __init__(self, operators: list[ChainOperator], outputs: dict[int, Output], limit: int) -> None:
        self.operators = operators
        self._counts = [0] * len(operators)
        self._times = [0.0] * len(operators)
        names = self._namespace(outputs, limit)
        self._plain = _Loop(operators, names, timed=False)
        self._timed = _Loop(operators, names, timed=True)

    def run(self, batch: Records) -> None:
        """Take the records through the chain, in order; raises what the functions raise.

        A clock stands around each operator for the first record; its shares of the time stand for the batch.
        """
        started = time.perf_counter()
        self._loop(self._timed, batch[:1])
        if len(batch) > 1:
            self._loop(self._plain, batch[1:])
        elapsed = time.perf_counter() - started
        total = sum(self._times)
        for index, operator in enumerate(self.operators):
            operator.busy_s += elapsed * self._times[index] / total if total else 0.0
            self._times[index] = 0.0

    def failure(self, trace: TracebackType | None) -> Failure | None:
        """Where in the chain a traceback comes from; None when it is not from here."""
        while trace is not None:
            for loop in (self._plain, self._timed):
                if trace.tb_frame.f_code is loop.function.__code__ and trace.tb_lineno in loop.lines:
                    index, in_key, name = loop.lines[trace.tb_lineno]
                    operator = self.operators[index]
                    operator.errors += 1
                    _uncount_rest(self.operators[0], operator)
                    return Failure(operator, in_key, trace.tb_frame.f_locals.get(name))
            trace = trace.tb_next
        return None

    def _loop(self, loop: _Loop, batch: Records) -> None:
        records: Any = iter(batch)
        try:
            loop.function(records)
        finally:
            self._account(len(batch) - records.__length_hint__())

    def _account(self, taken: int) -> None:
        """Turn the counts of the operators that change how many records there are into counts for all."""
        entered = [0] * len(self.operators)
        entered[0] = taken
        numbers = {id(operator): index for index, operator in enumerate(self.operators)}
        for index, operator in enumerate(self.operators):
            operator.records_in += entered[index]
            left = self._counts[index] if operator.kind in _COUNTED else entered[index]
            operator.records_out += left
            self._counts[index] = 0
            for child in operator.children:
                entered[numbers[id(child)]] = left

    def _namespace(self, outputs: dict[int, Output], limit: int) -> dict[str, Any]:
        """What the generated code can see; both versions share it, the state of reduce included."""
        names: dict[str, Any] = {"counts": self._counts, "times": self._times, "clock": time.perf_counter}
        names |= {"many": _many, "timed": _timed, "limit": limit, "missing": object()}
        for index, operator in enumerate(self.operators):
            names |= {f"f{index}": operator.call, f"k{index}": operator.key, f"x{index}": operator.context}
            names |= {f"s{index}": {}, f"o{index}": RecordBuffer()}
        for number, output in outputs.items():
            names |= {f"e{number}": output.buffer.append, f"b{number}": output.buffer, f"w{number}": output.flush}
        return names


_COUNTED = frozenset({OperatorKind.FILTER, OperatorKind.FLAT_MAP, OperatorKind.PROCESS})


def _uncount_rest(operator: ChainOperator, failed: ChainOperator) -> bool:
    """Take the failed record out of the counts of the operators that it did not come to; True once `failed` is met."""
    if operator is failed:
        _uncount_output(operator)
        return True
    met = False
    for child in operator.children:
        if met:
            child.records_in -= 1
            _uncount_output(child)
        else:
            met = _uncount_rest(child, failed)
    return met


def _uncount_output(operator: ChainOperator) -> None:
    if operator.kind in _COUNTED:
        return
    operator.records_out -= 1
    for child in operator.children:
        child.records_in -= 1
        _uncount_output(child)


def _many(result: Any) -> Any:
    """What a flat_map function returned, as an iterable."""
    if result is None:
        return ()
    if isinstance(result, (str, bytes)):
        raise TypeError(f"flat_map got the {type(result).__name__} {result!r:.40} where it needs a list of records")
    return result


def _timed(records: Any, times: list[float], index: int) -> Iterator[Any]:
    """The records, with the time that making each of them took added to `times[index]`."""
    iterator = iter(records)
    while True:
        started = time.perf_counter()
        try:
            record = next(iterator)
        except StopIteration:
            return
        finally:
            times[index] += time.perf_counter() - started
        yield record


@lru_cache(maxsize=256)
def _compiled(text: str, name: str) -> CodeType:
    """Subtasks of an operator chain share their code."""
    return compile(text, name, "exec")


class _Loop:
    """Writes and compiles a chain's loop, and remembers which line belongs to which operator."""

    def __init__(self, operators: list[ChainOperator], names: dict[str, Any], *, timed: bool) -> None:
        self._numbers = {id(operator): index for index, operator in enumerate(operators)}
        self._timed = timed
        self._text: list[str] = []
        self.lines: dict[int, tuple[int, bool, str]] = {}
        self._write(operators)
        title = " → ".join(operator.plan.node.name for operator in operators)
        namespace = dict(names)
        exec(_compiled("\n".join(self._text), f"{GENERATED} {title}>"), namespace)  # noqa: S102 - our own text
        self.function: Any = namespace["run"]

    def _write(self, operators: list[ChainOperator]) -> None:
        counted = [index for index, operator in enumerate(operators) if operator.kind in _COUNTED]
        self._line(0, "def run(batch):")
        for index in counted:
            self._line(1, f"n{index} = 0")
        self._line(1, "try:")
        self._line(2, "for record in batch:")
        self._operator(operators[0], "record", 3, amplified=False)
        self._line(1, "finally:")
        self._line(2, "pass")
        for index in counted:
            self._line(2, f"counts[{index}] += n{index}")

    def _line(self, indent: int, text: str, operator: tuple[int, bool, str] | None = None) -> None:
        self._text.append("    " * indent + text)
        if operator is not None:
            self.lines[len(self._text)] = operator

    def _call(self, indent: int, text: str, index: int, value: str) -> None:
        """A line that calls the user's function, with the clock around it in the timed version."""
        if self._timed:
            self._line(indent, "t = clock()")
        self._line(indent, text, (index, False, value))
        if self._timed:
            self._line(indent, f"times[{index}] += clock() - t")

    def _operator(self, operator: ChainOperator, value: str, indent: int, *, amplified: bool) -> None:
        index = self._numbers[id(operator)]
        if operator.key is not None:
            self._line(indent, f"key = k{index}({value})", (index, True, value))
        write = getattr(self, f"_{operator.kind}")
        result, indent = write(operator, index, value, indent)
        amplified = amplified or operator.kind in (OperatorKind.FLAT_MAP, OperatorKind.PROCESS)
        for output in operator.plan.outputs:
            self._line(indent, f"e{output}({result})")
            if amplified:
                self._line(indent, f"if len(b{output}) >= limit: w{output}()", (index, False, value))
        for child in operator.children:
            self._operator(child, result, indent, amplified=amplified)
        if not operator.plan.outputs and not operator.children:
            self._line(indent, "pass")

    def _source(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        return value, indent

    _union = _source

    def _map(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        self._call(indent, f"v{index} = f{index}({value})", index, value)
        return f"v{index}", indent

    def _filter(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        if self._timed:
            self._call(indent, f"kept = f{index}({value})", index, value)
            self._line(indent, "if kept:", (index, False, value))
        else:
            self._line(indent, f"if f{index}({value}):", (index, False, value))
        self._line(indent + 1, f"n{index} += 1")
        return value, indent + 1

    def _flat_map(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        many = f"many(f{index}({value}))"
        self._call(indent, f"r{index} = {many}", index, value)
        records = f"timed(r{index}, times, {index})" if self._timed else f"r{index}"
        self._line(indent, f"for v{index} in {records}:", (index, False, value))
        self._line(indent + 1, f"n{index} += 1")
        return f"v{index}", indent + 1

    def _process(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        if operator.key is not None:
            self._line(indent, f"x{index}.key = key")
        self._call(indent, f"f{index}({value}, x{index}, o{index})", index, value)
        self._line(indent, f"for v{index} in o{index}.drain():")
        self._line(indent + 1, f"n{index} += 1")
        return f"v{index}", indent + 1

    def _reduce(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        key = "key" if operator.key is not None else "None"
        self._line(indent, f"v{index} = s{index}.get({key}, missing)", (index, operator.key is not None, value))
        self._line(indent, f"if v{index} is missing: v{index} = {value}")
        self._line(indent, "else:")
        self._call(indent + 1, f"v{index} = f{index}(v{index}, {value})", index, value)
        self._line(indent, f"s{index}[{key}] = v{index}")
        return f"v{index}", indent

    def _sink(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        self._call(indent, f"f{index}({value})", index, value)
        return value, indent

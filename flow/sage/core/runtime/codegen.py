"""Writes the loop of a run of stateless operators.

For `map → filter → map` the loop is what a person would write:

    for record in records:
        v1 = f1(record)
        if f2(v1):
            n2 += 1
            v3 = f3(v1)
            e0(v3)

so that a record costs three calls and nothing else. Records keep their order, and a record passes all operators before
the next one starts. When a user's function raises, the line of the generated function tells which operator it was and
its local variables which record. There are four versions of a loop: with event times or without, and with a clock
around each operator or without (that one runs on a sample); loops that reduce also with the table's dict or without.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from sage.core.graph.origin import GENERATED
from sage.core.graph.spec import OperatorKind
from sage.core.runtime.operators.functions import many
from sage.core.runtime.output import Target
from sage.core.runtime.stages import ChainOperator, copied
from sage.core.state.base import StateTable

__all__ = ["COUNTED", "Loop", "Member", "Version", "namespace"]

COUNTED = frozenset({OperatorKind.FILTER, OperatorKind.FLAT_MAP})


class Member:
    """An operator of the loop: its number, the targets it feeds by itself, and the members below it."""

    def __init__(self, index: int, operator: ChainOperator) -> None:
        self.index = index
        self.operator = operator
        self.targets: list[int] = []
        self.children: list[Member] = []


class Nothing(enum.Enum):
    """How a reduce keeps the result None, which in state means: no value."""

    NOTHING = "nothing"


def namespace(
    members: list[Member],
    targets: list[Target],
    counts: list[int],
    times: list[float],
    *,
    limit: int,
    tables: dict[int, StateTable],
    copies: bool,
) -> dict[str, Any]:
    """What the generated code can see, for all its versions. `tables`: the state of the members that reduce."""
    names: dict[str, Any] = {"counts": counts, "times": times, "clock": time.perf_counter}
    names |= {"many": many, "sampled": _sampled, "limit": limit, "nothing": Nothing.NOTHING}
    if copies:
        names["copy"] = copied
    for member in members:
        index, operator = member.index, member.operator
        names |= {f"f{index}": operator.call, f"k{index}": operator.key, f"kb{index}": operator.keyed}
    for index, table in tables.items():
        accessors = getattr(table, "accessors", None)
        get, put = (table.get, table.put) if accessors is None else accessors(None)
        names |= {f"g{index}": get, f"p{index}": put, f"d{index}": getattr(table, "direct", None)}
    for number, target in enumerate(targets):
        names |= {f"e{number}": target.buffer.append, f"t{number}": target.timestamps.append}
        names |= {f"b{number}": target.buffer, f"w{number}": target.flush}
    return names


def _sampled(records: Any, times: list[float], index: int) -> Iterator[Any]:
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


class Version(NamedTuple):
    """Which of its versions a loop is: records with event times; with clocks; reducing in the dicts of its tables."""

    timed: bool
    clocked: bool
    direct: bool


class Loop:
    """A version of the loop: `function(records, timestamps)`, and which operator each of its lines belongs to.

    `records` is an iterator; `lines` has (operator's number, whether it is its key, name of the record's variable).
    """

    def __init__(self, members: list[Member], names: dict[str, Any], version: Version) -> None:
        self._timed = version.timed
        self._clocked = version.clocked
        self._direct = version.direct
        self._copies = "copy" in names
        self._text: list[str] = []
        self.lines: dict[int, tuple[int, bool, str]] = {}
        self._write(members)
        title = " → ".join(member.operator.plan.node.name for member in members)
        scope = dict(names)
        exec(_compiled("\n".join(self._text), f"{GENERATED} {title}>"), scope)  # noqa: S102 - our own text
        self.function: Any = scope["run"]

    def _write(self, members: list[Member]) -> None:
        counted = [member.index for member in members if member.operator.kind in COUNTED]
        self._line(0, "def run(records, timestamps):")
        for index in counted:
            self._line(1, f"n{index} = 0")
        self._line(1, "try:")
        loop = "for record, time in zip(records, timestamps):" if self._timed else "for record in records:"
        self._line(2, loop)
        self._member(members[0], "record", 3, amplified=False)
        self._line(1, "finally:")
        self._line(2, "pass")
        for index in counted:
            self._line(2, f"counts[{index}] += n{index}")

    def _line(self, indent: int, text: str, operator: tuple[int, bool, str] | None = None) -> None:
        self._text.append("    " * indent + text)
        if operator is not None:
            self.lines[len(self._text)] = operator

    def _call(self, indent: int, text: str, index: int, value: str) -> None:
        """A line that calls the user's function, with the clock around it in the clocked version."""
        if self._clocked:
            self._line(indent, "t = clock()")
        self._line(indent, text, (index, False, value))
        if self._clocked:
            self._line(indent, f"times[{index}] += clock() - t")

    def _member(self, member: Member, value: str, indent: int, *, amplified: bool) -> None:
        index, operator = member.index, member.operator
        if operator.key is not None:
            self._line(indent, f"key = k{index}({value})", (index, True, value))
            by_table = operator.kind is OperatorKind.REDUCE and not self._direct
            if operator.keyed is not None and (operator.stateful or by_table):
                self._line(indent, f"kb{index}.key = key")
        write = getattr(self, f"_{operator.kind}")
        result, indent = write(operator, index, value, indent)
        amplified = amplified or operator.kind is OperatorKind.FLAT_MAP
        handed = f"copy({result})" if self._copies else result
        for target in member.targets:
            self._line(indent, f"e{target}({handed})", (index, False, value))
            if self._timed:
                self._line(indent, f"t{target}(time)")
            if amplified:
                self._line(indent, f"if len(b{target}) >= limit: w{target}()", (index, False, value))
        for child in member.children:
            taken = result
            if self._copies:
                taken = f"c{child.index}"
                self._line(indent, f"{taken} = {handed}", (index, False, value))
            self._member(child, taken, indent, amplified=amplified)
        if not member.targets and not member.children:
            self._line(indent, "pass")

    def _source(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        return value, indent

    _union = _source

    def _map(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        self._call(indent, f"v{index} = f{index}({value})", index, value)
        return f"v{index}", indent

    def _filter(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        if self._clocked:
            self._call(indent, f"kept = f{index}({value})", index, value)
            self._line(indent, "if kept:", (index, False, value))
        else:
            self._line(indent, f"if f{index}({value}):", (index, False, value))
        self._line(indent + 1, f"n{index} += 1")
        return value, indent + 1

    def _flat_map(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        self._call(indent, f"r{index} = many(f{index}({value}))", index, value)
        records = f"sampled(r{index}, times, {index})" if self._clocked else f"r{index}"
        self._line(indent, f"for v{index} in {records}:", (index, False, value))
        self._line(indent + 1, f"n{index} += 1")
        return f"v{index}", indent + 1

    def _reduce(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        key = "key" if operator.key is not None else "None"
        read = f"d{index}.get({key})" if self._direct else f"g{index}()"
        self._line(indent, f"v{index} = {read}", (index, operator.key is not None, value))
        self._line(indent, f"if v{index} is None: v{index} = {value}")
        self._line(indent, "else:")
        self._call(indent + 1, f"v{index} = f{index}(None if v{index} is nothing else v{index}, {value})", index, value)
        written = f"nothing if v{index} is None else v{index}"
        write = f"d{index}[{key}] = {written}" if self._direct else f"p{index}({written})"
        self._line(indent, write, (index, False, value))
        return f"v{index}", indent

    def _sink(self, operator: ChainOperator, index: int, value: str, indent: int) -> tuple[str, int]:
        self._call(indent, f"f{index}({value})", index, value)
        return value, indent

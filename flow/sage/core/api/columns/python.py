"""Expressions over rows as generated Python functions, which are fused with their neighbours as lambdas are.

A function computes with values that are there. When one is missing, Python raises TypeError, and the row is computed
again by `evaluate`, which knows missing values; that is slower, and only such rows pay for it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.core.api.columns.expressions import Call, Column, Expression, Literal
from sage.core.graph.origin import GENERATED

__all__ = ["RowFilter", "RowSelect", "evaluate"]

_RAISED = (TypeError, ZeroDivisionError, KeyError, AttributeError)


@dataclass(slots=True)
class _Names:
    """Constants that the generated code refers to, and names for its own variables."""

    values: dict[str, Any] = field(default_factory=dict)
    locals: int = 0

    def add(self, value: Any) -> str:
        name = f"c{len(self.values)}"
        self.values[name] = value
        return name

    def local(self) -> str:
        self.locals += 1
        return f"e{self.locals}"


class RowSelect:
    """`execute(row)` makes a new row (dict): a column for each expression."""

    def __init__(self, columns: tuple[tuple[str, Expression], ...], label: str = "select") -> None:
        self._columns = columns
        self.__qualname__ = label  # as `explain` shows it
        self.execute = _compiled(self._text, self._slowly)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowSelect, (self._columns, self.__qualname__)

    def _text(self, names: _Names, by_key: bool) -> str:
        parts = [f"{names.add(name)}: {_text(value, names, by_key)}" for name, value in self._columns]
        return f"{{{', '.join(parts)}}}"

    def _slowly(self, record: Any) -> dict[str, Any]:
        return {name: evaluate(value, record) for name, value in self._columns}


class RowFilter:
    """`execute(row)` is true when the condition is."""

    def __init__(self, condition: Expression) -> None:
        self._condition = condition
        self.__qualname__ = repr(condition)
        self.execute = _compiled(self._text, self._slowly)

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFilter, (self._condition,)

    def _text(self, names: _Names, by_key: bool) -> str:
        return _text(self._condition, names, by_key)

    def _slowly(self, record: Any) -> Any:
        return evaluate(self._condition, record)


def evaluate(expression: Expression, row: Any) -> Any:
    """The value for one row, None where it is missing: the meaning that the generated code must have."""
    if isinstance(expression, Literal):
        return expression.value
    if isinstance(expression, Column):
        return row[expression.name] if isinstance(row, Mapping) else getattr(row, expression.name)
    assert isinstance(expression, Call), "there are three kinds"
    values = [evaluate(argument, row) for argument in expression.arguments]
    special = _SPECIAL.get(expression.function)
    if special is not None:
        return special(*values, *expression.options)
    if any(value is None for value in values):
        return None
    return _PLAIN[expression.function](*values, *expression.options)


def _and(first: Any, second: Any) -> Any:
    if first is False or second is False:
        return False
    return None if first is None or second is None else first & second


def _or(first: Any, second: Any) -> Any:
    if first is True or second is True:
        return True
    return None if first is None or second is None else first | second


_SPECIAL: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "is_null": lambda value: value is None,
    "fill_null": lambda value, other: other if value is None else value,
    "is_in": lambda value, values: value in values,
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "modulo": operator.mod,
    "negate": operator.neg,
    "abs": operator.abs,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "invert": lambda value: value ^ True,
    "lower": str.lower,
    "upper": str.upper,
    "length": len,
    "contains": lambda text, part: part in text,
    "starts_with": str.startswith,
}
_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "floor_divide": "//",
    "modulo": "%",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "and": "&",
    "or": "|",
}
# Comparisons of None with == do not raise: these get a test. The text methods raise TypeError for None by themselves.
_TEXTS = {
    "negate": "(-{0})",
    "abs": "abs({0})",
    "equal": "(None if ({a} := {0}) is None or ({b} := {1}) is None else {a} == {b})",
    "not_equal": "(None if ({a} := {0}) is None or ({b} := {1}) is None else {a} != {b})",
    "invert": "({0} ^ True)",
    "is_null": "({0} is None)",
    "fill_null": "({1} if ({a} := {0}) is None else {a})",
    "is_in": "({0} in {1})",
    "lower": "str.lower({0})",
    "upper": "str.upper({0})",
    "length": "len({0})",
    "contains": "({1} in {0})",
    "starts_with": "str.startswith({0}, {1})",
}


def _text(expression: Expression, names: _Names, by_key: bool) -> str:
    if isinstance(expression, Literal):
        return names.add(expression.value)
    if isinstance(expression, Column):
        return f"r[{names.add(expression.name)}]" if by_key else f"getattr(r, {names.add(expression.name)})"
    assert isinstance(expression, Call), "there are three kinds"
    parts = [_text(argument, names, by_key) for argument in expression.arguments]
    parts += [names.add(option) for option in expression.options]
    sign = _SIGNS.get(expression.function)
    if sign is not None:
        return f"({parts[0]} {sign} {parts[1]})"
    return _TEXTS[expression.function].format(*parts, a=names.local(), b=names.local())


def _compiled(text: Callable[[_Names, bool], str], slowly: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a row. Dicts are what it expects first; other mappings and objects cost one more call."""
    names = _Names()
    for_dicts, for_objects = text(names, True), text(names, False)
    scope = {**names.values, "slowly": slowly, "Mapping": Mapping, "raised": _RAISED}
    lines = [
        "def objects(r):",
        "    if isinstance(r, Mapping): return slowly(r)",
        "    try:",
        f"        return {for_objects}",
        "    except raised:",
        "        return slowly(r)",
        "def rows(r):",
        "    if type(r) is not dict: return objects(r)",
        "    try:",
        f"        return {for_dicts}",
        "    except raised:",
        "        return slowly(r)",
    ]
    exec(compile("\n".join(lines), f"{GENERATED} columns>", "exec"), scope)  # noqa: S102 - our text; names are constants
    function: Callable[[Any], Any] = scope["rows"]
    return function

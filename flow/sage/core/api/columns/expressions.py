"""Expressions: what users write, as a tree that `python` and `arrow` turn into something that runs.

A missing value (None, null) makes the result missing, as in SQL: arithmetic and comparisons with it are missing, `&`
and `|` are Kleene's, and `where` keeps a record only when its condition is true. `/` is true division, `//` and `%`
round towards minus infinity, as Python's do. Division by zero and integers that do not fit into 64 bits (columnar data)
are errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from sage.common.errors import PipelineError

__all__ = ["Call", "Column", "Expression", "Literal", "as_expression", "col", "lit", "names_of"]

Value = int | float | str | bytes | bool | None


class Expression:
    """A value for each record, computed from its columns."""

    __slots__ = ()

    def __add__(self, other: Any) -> Expression:
        return Call("add", (self, as_expression(other)))

    def __radd__(self, other: Any) -> Expression:
        return Call("add", (as_expression(other), self))

    def __sub__(self, other: Any) -> Expression:
        return Call("subtract", (self, as_expression(other)))

    def __rsub__(self, other: Any) -> Expression:
        return Call("subtract", (as_expression(other), self))

    def __mul__(self, other: Any) -> Expression:
        return Call("multiply", (self, as_expression(other)))

    def __rmul__(self, other: Any) -> Expression:
        return Call("multiply", (as_expression(other), self))

    def __truediv__(self, other: Any) -> Expression:
        return Call("divide", (self, as_expression(other)))

    def __rtruediv__(self, other: Any) -> Expression:
        return Call("divide", (as_expression(other), self))

    def __floordiv__(self, other: Any) -> Expression:
        return Call("floor_divide", (self, as_expression(other)))

    def __rfloordiv__(self, other: Any) -> Expression:
        return Call("floor_divide", (as_expression(other), self))

    def __mod__(self, other: Any) -> Expression:
        return Call("modulo", (self, as_expression(other)))

    def __rmod__(self, other: Any) -> Expression:
        return Call("modulo", (as_expression(other), self))

    def __neg__(self) -> Expression:
        return Call("negate", (self,))

    def __abs__(self) -> Expression:
        return Call("abs", (self,))

    def __lt__(self, other: Any) -> Expression:
        return Call("less", (self, as_expression(other)))

    def __le__(self, other: Any) -> Expression:
        return Call("less_equal", (self, as_expression(other)))

    def __gt__(self, other: Any) -> Expression:
        return Call("greater", (self, as_expression(other)))

    def __ge__(self, other: Any) -> Expression:
        return Call("greater_equal", (self, as_expression(other)))

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return Call("equal", (self, as_expression(other)))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Call("not_equal", (self, as_expression(other)))

    def __and__(self, other: Any) -> Expression:
        return Call("and", (self, as_expression(other)))

    def __rand__(self, other: Any) -> Expression:
        return Call("and", (as_expression(other), self))

    def __or__(self, other: Any) -> Expression:
        return Call("or", (self, as_expression(other)))

    def __ror__(self, other: Any) -> Expression:
        return Call("or", (as_expression(other), self))

    def __invert__(self) -> Expression:
        return Call("invert", (self,))

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        raise PipelineError(
            "An expression has no truth value", cause="it stands for a column", hint="use &, | and ~ for and, or, not"
        )

    def is_null(self) -> Expression:
        """Whether the value is missing."""
        return Call("is_null", (self,))

    def fill_null(self, value: Value) -> Expression:
        """The value, or this one where it is missing."""
        return Call("fill_null", (self, Literal(value)))

    def is_in(self, values: Iterable[Value]) -> Expression:
        """Whether the value is one of these; false where it is missing."""
        return Call("is_in", (self,), (frozenset(values),))

    def between(self, low: Any, high: Any) -> Expression:
        """Whether low <= value <= high."""
        return Call("and", (self >= low, self <= high))

    def lower(self) -> Expression:
        """The text in lower case."""
        return Call("lower", (self,))

    def upper(self) -> Expression:
        """The text in upper case."""
        return Call("upper", (self,))

    def length(self) -> Expression:
        """How many characters the text has."""
        return Call("length", (self,))

    def contains(self, part: str) -> Expression:
        """Whether the text has this part (no pattern)."""
        return Call("contains", (self,), (part,))

    def starts_with(self, start: str) -> Expression:
        """Whether the text begins so."""
        return Call("starts_with", (self,), (start,))


@dataclass(slots=True, frozen=True, eq=False)
class Column(Expression):
    """The column of that name."""

    name: str

    def __repr__(self) -> str:
        return f"col({self.name!r})"


@dataclass(slots=True, frozen=True, eq=False)
class Literal(Expression):
    """The same value for each record."""

    value: Value

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(slots=True, frozen=True, eq=False)
class Call(Expression):
    """A function of expressions; `options` are plain values."""

    function: str
    arguments: tuple[Expression, ...]
    options: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        shown = [repr(argument) for argument in self.arguments] + [repr(option) for option in self.options]
        sign = _SIGNS.get(self.function)
        if sign is not None and len(shown) == 2:
            return f"({shown[0]} {sign} {shown[1]})"
        return f"{self.function}({', '.join(shown)})"


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
    "equal": "==",
    "not_equal": "!=",
    "and": "&",
    "or": "|",
}


def col(name: str) -> Column:
    """The column of that name.

    >>> col("x") * 3 + 1
    ((col('x') * 3) + 1)
    """
    given: object = name
    if not isinstance(given, str) or not given:
        raise PipelineError("A column has a name", cause=f"got {given!r:.80}")
    return Column(given)


def lit(value: Value) -> Literal:
    """A constant: needed only where an expression would otherwise begin with two constants."""
    given: object = value
    if not isinstance(given, (int, float, str, bytes, bool, type(None))):
        raise PipelineError("A constant is a number, a text, bytes, a truth value or None", cause=f"got {given!r:.80}")
    return Literal(given)


def as_expression(value: Any) -> Expression:
    """An expression as it is, a plain value as a constant. Raises PipelineError for anything else."""
    return value if isinstance(value, Expression) else lit(value)


def names_of(expression: Expression) -> list[str]:
    """The columns that it reads, each once."""
    if isinstance(expression, Column):
        return [expression.name]
    if isinstance(expression, Call):
        return list(dict.fromkeys(name for argument in expression.arguments for name in names_of(argument)))
    return []

"""Expressions over Arrow record batches (pyarrow.compute)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sage.common.errors import PipelineError
from sage.core.api.columns.expressions import Call, Column, Expression, Literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["evaluate", "require_arrow", "select", "where"]


def require_arrow() -> None:
    """Raises PipelineError when pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise PipelineError(
            "Columnar data needs pyarrow", cause="it is not installed", hint='pip install "sage-stack[arrow]"'
        ) from error


def select(columns: Mapping[str, Expression], batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with a column for each expression. Raises ValueError, with the expression, for what Arrow refuses."""
    import pyarrow as pa

    arrays = [_column(expression, batch) for expression in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def where(condition: Expression, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows for which the condition is true. Raises as `select` does."""
    return batch.filter(_column(condition, batch))


def _column(expression: Expression, batch: pa.RecordBatch) -> Any:
    import pyarrow as pa

    try:
        value = evaluate(expression, batch)
    except pa.ArrowException as error:
        raise ValueError(f"{error}, in {expression!r}") from None
    return pa.repeat(value, batch.num_rows) if isinstance(value, pa.Scalar) else value


def evaluate(expression: Expression, batch: pa.RecordBatch) -> Any:
    """An Arrow array, or a scalar where no column is read. Raises KeyError for a column that is not there."""
    import pyarrow as pa

    if isinstance(expression, Literal):
        return pa.scalar(expression.value)
    if isinstance(expression, Column):
        index = batch.schema.get_field_index(expression.name)
        if index < 0:
            raise KeyError(f"{expression.name!r}; the columns are {', '.join(batch.schema.names)}")
        return batch.column(index)
    assert isinstance(expression, Call), "there are three kinds"
    values = [evaluate(argument, batch) for argument in expression.arguments]
    return _FUNCTIONS[expression.function](*values, *expression.options)


def _named(name: str) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        import pyarrow.compute as pc

        return pc.call_function(name, list(values))

    return call


def _divide(first: Any, second: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.divide_checked(pc.cast(first, pa.float64()), pc.cast(second, pa.float64()))


def _floor_divide(first: Any, second: Any) -> Any:
    """Towards minus infinity; whole numbers stay whole (Arrow's own division of them rounds towards zero)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    quotient = pc.divide_checked(first, second)
    if pa.types.is_floating(quotient.type):
        return pc.floor(quotient)
    rest = pc.subtract_checked(first, pc.multiply_checked(quotient, second))
    signs = pc.xor(pc.less(first, 0), pc.less(second, 0))
    below = pc.and_(pc.not_equal(rest, 0), signs)
    return pc.subtract_checked(quotient, pc.cast(below, quotient.type))


def _modulo(first: Any, second: Any) -> Any:
    import pyarrow.compute as pc

    return pc.subtract_checked(first, pc.multiply_checked(_floor_divide(first, second), second))


def _is_in(value: Any, values: frozenset[Any]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(value, value_set=pa.array(list(values), type=value.type))


def _contains(value: Any, part: str) -> Any:
    import pyarrow.compute as pc

    return pc.match_substring(value, part)


def _starts_with(value: Any, start: str) -> Any:
    import pyarrow.compute as pc

    return pc.starts_with(value, start)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _named("add_checked"),
    "subtract": _named("subtract_checked"),
    "multiply": _named("multiply_checked"),
    "divide": _divide,
    "floor_divide": _floor_divide,
    "modulo": _modulo,
    "negate": _named("negate_checked"),
    "abs": _named("abs_checked"),
    "less": _named("less"),
    "less_equal": _named("less_equal"),
    "greater": _named("greater"),
    "greater_equal": _named("greater_equal"),
    "equal": _named("equal"),
    "not_equal": _named("not_equal"),
    "and": _named("and_kleene"),
    "or": _named("or_kleene"),
    "invert": _named("invert"),
    "is_null": _named("is_null"),
    "fill_null": _named("coalesce"),
    "is_in": _is_in,
    "lower": _named("utf8_lower"),
    "upper": _named("utf8_upper"),
    "length": _named("utf8_length"),
    "contains": _contains,
    "starts_with": _starts_with,
}

"""`select` and `where` on streams, and streams of columnar data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sage.common.errors import PipelineError
from sage.core.api.stream import Stream
from sage.core.graph.origin import Origin
from sage.core.graph.spec import OperatorKind

if TYPE_CHECKING:  # pipelines without expressions do not pay for importing them
    import pyarrow as pa

    from sage.core.api.columns.expressions import Column, Expression
    from sage.core.api.datastream import DataStream

__all__ = ["ColumnStream", "ColumnsMixin", "record_batches"]

T = TypeVar("T")
Row = dict[str, Any]


class ColumnsMixin(Stream[T]):
    """The methods of DataStream that take expressions."""

    def select(self, *columns: str | Column, **expressions: Any) -> DataStream[Row]:
        """Rows (dicts) with these columns, and with one for each expression.

        Records are dicts, or objects with attributes. For names that Python does not take, and for the options of other
        operators, use `map`.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([{"x": 1}, {"x": 2}]).select("x", y=col("x") * 3 + 1).print()
        >>> _ = env.submit()
        {'x': 1, 'y': 4}
        {'x': 2, 'y': 7}
        """
        from sage.core.api.columns.python import RowSelect

        chosen = _columns(columns, expressions)
        return self._plain(self._add(OperatorKind.MAP, RowSelect(chosen, _label(chosen)), "select", None, None))

    def where(self, condition: Expression) -> DataStream[T]:
        """The records for which the condition is true.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([{"x": 1}, {"x": 5}, {"x": None}]).where(col("x") > 3).print()
        >>> _ = env.submit()
        {'x': 5}
        """
        from sage.core.api.columns.python import RowFilter

        return self._plain(self._add(OperatorKind.FILTER, RowFilter(_condition(condition)), "where", None, None))

    def columns(self, schema: pa.Schema | None = None) -> ColumnStream:
        """The rows (dicts) as columnar data: those that come together become one Arrow record batch.

        Without a schema, that of the first batch holds for all. Event times are not kept. Raises PipelineError without
        pyarrow.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_collection([{"x": 1}, {"x": 5}]).columns().where(col("x") > 3).rows().print()
        >>> _ = env.submit()
        {'x': 5}
        """
        from sage.core.api.columns.arrow import require_arrow
        from sage.core.runtime.operators.columns import BatchesFactory

        require_arrow()
        return ColumnStream(self._operator("columns", BatchesFactory(schema), label="" if schema is None else "schema"))


class ColumnStream:
    """A stream of columnar data: each record is a `pyarrow.RecordBatch` with any number of rows."""

    def __init__(self, stream: DataStream[pa.RecordBatch]) -> None:
        self._stream = stream

    def select(self, *columns: str | Column, **expressions: Any) -> ColumnStream:
        """Batches with these columns, and with one for each expression.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_columns({"x": [1, 5], "s": ["a", "b"]}).select("s", y=col("x") * 3 + 1).rows().print()
        >>> _ = env.submit()
        {'s': 'a', 'y': 4}
        {'s': 'b', 'y': 16}
        """
        from sage.core.runtime.operators.columns import SelectFactory

        chosen = _columns(columns, expressions)
        factory = SelectFactory(chosen)
        return ColumnStream(self._stream._operator("select", factory, label=_label(chosen)))

    def where(self, condition: Expression) -> ColumnStream:
        """Only the rows for which the condition is true; a batch without any is left out.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_columns({"x": [1, 5], "s": ["a", "b"]}).where(col("s") == "b").rows().print()
        >>> _ = env.submit()
        {'x': 5, 's': 'b'}
        """
        from sage.core.runtime.operators.columns import WhereFactory

        checked = _condition(condition)
        factory = WhereFactory(checked)
        return ColumnStream(self._stream._operator("where", factory, label=repr(checked)))

    def rows(self) -> DataStream[Row]:
        """The rows one by one, as dicts.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_columns({"x": [1, 5], "s": ["a", "b"]}).rows().print()
        >>> _ = env.submit()
        {'x': 1, 's': 'a'}
        {'x': 5, 's': 'b'}
        """
        from sage.core.runtime.operators.columns import RowsFactory

        return self._stream._operator("rows", RowsFactory())

    def batches(self) -> DataStream[pa.RecordBatch]:
        """The record batches, for `map`, `sink` and others.

        >>> from sage.core.api import LocalEnvironment, col
        >>> env = LocalEnvironment("example")
        >>> _ = env.from_columns({"x": [1, 5], "s": ["a", "b"]}).batches().map(lambda batch: batch.num_rows).print()
        >>> _ = env.submit()
        2
        """
        return self._stream


def record_batches(data: Any, size: int, origin: Origin) -> list[pa.RecordBatch]:
    """A mapping of columns, a table, or record batches, cut into batches of `size` rows. Raises PipelineError."""
    from sage.core.api.columns.arrow import require_arrow

    require_arrow()
    import pyarrow as pa

    try:
        if isinstance(data, Mapping):
            table = pa.table(dict(data))
        elif isinstance(data, pa.Table):
            table = data
        elif isinstance(data, pa.RecordBatch):
            table = pa.Table.from_batches([data])
        else:
            table = pa.Table.from_batches(list(data))
    except (TypeError, ValueError) as error:
        raise PipelineError(
            f"from_columns cannot read this ({origin})",
            cause=f"{type(error).__name__}: {error}",
            hint="pass a mapping of names to equally long lists, a pyarrow Table, or record batches",
        ) from error
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches(max_chunksize=max(1, size))
    return batches


def _columns(names: Sequence[str | Column], expressions: Mapping[str, Any]) -> tuple[tuple[str, Expression], ...]:
    from sage.core.api.columns.expressions import Column, as_expression

    chosen: dict[str, Expression] = {}
    for name in names:
        column = Column(name) if isinstance(name, str) else name
        if not isinstance(column, Column):
            raise _refused("select", f"{column!r:.80} has no name", "write select(name=expression)")
        chosen[column.name] = column
    for name, value in expressions.items():
        try:
            chosen[name] = as_expression(value)
        except PipelineError as error:
            raise _refused("select", f"{name}={value!r:.60} is no expression", 'col("x") * 3 + 1') from error
    if not chosen:
        raise _refused("select", "it has no columns", 'select("x", y=col("x") * 3 + 1)')
    return tuple(chosen.items())


def _condition(condition: object) -> Expression:
    from sage.core.api.columns.expressions import Expression

    if not isinstance(condition, Expression):
        raise _refused("where", f"got {condition!r:.80}", 'where(col("x") > 3); for a function use filter(...)')
    return condition


def _refused(operator: str, cause: str, hint: str) -> PipelineError:
    origin = Origin.of_caller()
    return PipelineError(
        f"{operator} needs an expression ({origin})",
        cause=cause,
        hint=hint,
        details={"operator": operator, "file": origin.file, "line": origin.line},
    )


def _label(columns: Iterable[tuple[str, Expression]]) -> str:
    return ", ".join(name if repr(value) == f"col({name!r})" else f"{name}={value!r}" for name, value in columns)

"""Column expressions: rows and columnar data give the same, missing values included (SPEC K2)."""

from __future__ import annotations

import collections
import dataclasses
import sys
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import PipelineError
from sage.core.api import DataStream, Expression, LocalEnvironment, col, lit
from sage.core.api.columns import arrow
from sage.core.api.columns.python import RowFilter, RowSelect, evaluate
from sage.core.graph.serialize import dump_graph, load_graph

NUMBERS = st.none() | st.integers(-20, 20)
TEXTS = st.none() | st.text("abÄx", max_size=4)


def rows_of(numbers: Any = NUMBERS) -> Any:
    return st.lists(st.fixed_dictionaries({"x": numbers, "y": numbers, "s": TEXTS}), min_size=1, max_size=8)


def selected(expressions: dict[str, Any], rows: list[Any]) -> list[dict[str, Any]]:
    return [RowSelect(tuple(expressions.items())).execute(row) for row in rows]


def collected(stream: DataStream[Any]) -> list[Any]:
    out: list[Any] = []
    stream.sink(out.append, parallelism=1)
    stream.env.submit()
    return out


@st.composite
def numeric(draw: Any, depth: int = 3) -> Expression:
    """Numbers; only constants that are not 0 divide."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from([col("x"), col("y"), lit(2), lit(-3)]))  # type: ignore[no-any-return]
    first: Any = draw(numeric(depth - 1))
    kind = draw(st.sampled_from("+-*%/nafl"))
    if kind == "n":
        return -first  # type: ignore[no-any-return]
    if kind == "a":
        return abs(first)  # type: ignore[no-any-return]
    if kind == "f":
        return first.fill_null(7)  # type: ignore[no-any-return]
    if kind == "l":
        return col("s").length()
    if kind in "%/":
        divisor = draw(st.sampled_from([2, -3, 7]))
        return first // divisor if kind == "/" else first % divisor  # type: ignore[no-any-return]
    second: Any = draw(numeric(depth - 1))
    return {"+": first + second, "-": first - second, "*": first * second}[kind]  # type: ignore[no-any-return]


@st.composite
def condition(draw: Any, depth: int = 3) -> Expression:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        a, b = draw(numeric(1)), draw(numeric(1))
        compared = [a < b, a <= b, a > b, a >= b, a == b, a != b, a.is_null(), a.between(-2, b), a.is_in([1, 2, 3])]
        text = col("s")
        tested = [text.contains("a"), text.starts_with("b"), text.upper() == "AB", text.lower() != "x"]
        return draw(st.sampled_from([*compared, *tested]))  # type: ignore[no-any-return]
    a, b = draw(condition(depth - 1)), draw(condition(depth - 1))
    return draw(st.sampled_from([a & b, a | b, ~a]))  # type: ignore[no-any-return]


@pytest.mark.spec("K2")
class TestOneMeaning:
    @settings(deadline=None, max_examples=150)
    @given(rows_of(), numeric())
    def test_select_on_rows_and_in_arrow(self, rows: list[dict[str, Any]], expression: Expression) -> None:
        meant = [evaluate(expression, row) for row in rows]
        assert [made["r"] for made in selected({"r": expression}, rows)] == meant
        assert arrow.select({"r": expression}, batch(rows)).column(0).to_pylist() == meant

    @settings(deadline=None, max_examples=150)
    @given(rows_of(), condition())
    def test_where_on_rows_and_in_arrow(self, rows: list[dict[str, Any]], expression: Expression) -> None:
        meant = [row for row in rows if evaluate(expression, row) is True]
        assert list(filter(RowFilter(expression).execute, rows)) == meant
        assert arrow.where(expression, batch(rows)).to_pylist() == meant

    @given(rows_of(st.integers(-9, 9)), numeric())
    @settings(deadline=None)
    def test_objects_are_rows_too(self, rows: list[dict[str, Any]], expression: Expression) -> None:
        row_class = dataclasses.make_dataclass("Row", ["x", "y", "s"])
        objects = [row_class(**row) for row in rows]
        assert selected({"r": expression}, objects) == selected({"r": expression}, rows)

    def test_true_division(self) -> None:
        rows = [{"x": 7, "y": 2, "s": ""}]
        expressions = {"a": col("x") / 2, "b": 1 / col("y"), "c": 9 // col("y"), "d": -col("x") % 4}
        meant = [{"a": 3.5, "b": 0.5, "c": 4, "d": 1}]
        assert selected(expressions, rows) == meant
        assert arrow.select(expressions, batch(rows)).to_pylist() == meant

    def test_constants_from_the_left(self) -> None:
        expressions = {"a": 1 + col("x"), "b": 10 - col("x"), "c": 3 * col("x"), "d": 20 % col("x"), "e": lit("k")}
        meant = [{"a": 8, "b": 3, "c": 21, "d": 6, "e": "k"}]
        assert selected(expressions, [{"x": 7}]) == meant
        assert arrow.select(expressions, batch([{"x": 7}])).to_pylist() == meant

    @pytest.mark.parametrize("columnar", [False, True])
    def test_division_by_zero_fails_at_the_users_line(self, columnar: bool) -> None:
        env = LocalEnvironment("columns")
        if columnar:
            env.from_columns({"x": [1]}).select(y=col("x") // 0).rows().print()
        else:
            env.from_collection([{"x": 1}]).select(y=col("x") // 0).print()
        with pytest.raises(PipelineError, match=r"Operator 'select' failed \(.*test_columns.py:"):
            env.submit()


def batch(rows: list[dict[str, Any]]) -> Any:
    pa = pytest.importorskip("pyarrow")
    kinds = {"x": pa.int64(), "y": pa.int64(), "s": pa.string()}
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema([(name, kinds[name]) for name in rows[0]]))


class TestStreams:
    def test_rows(self) -> None:
        rows = LocalEnvironment("columns").from_collection([{"x": n, "s": "ab"} for n in range(5)])
        assert collected(rows.where(col("x") > 2).select("x", col("s"), y=col("x") * 3 + 1)) == [
            {"x": 3, "s": "ab", "y": 10},
            {"x": 4, "s": "ab", "y": 13},
        ]

    def test_other_mappings_and_missing_values(self) -> None:
        rows: list[Any] = [types.MappingProxyType({"x": 1}), {"x": None}, collections.OrderedDict(x=4)]
        stream = LocalEnvironment("columns").from_collection(rows).select(y=col("x") + 1, z=~(col("x") > 3))
        assert collected(stream) == [{"y": 2, "z": True}, {"y": None, "z": None}, {"y": 5, "z": False}]

    def test_expressions_go_to_other_processes_and_subtasks(self) -> None:
        env = LocalEnvironment("columns")
        rows = env.from_collection([{"x": n} for n in range(9)])
        stream = rows.rebalance().where(col("x") > 2).select(y=col("x") * 2)
        copy = load_graph(dump_graph(env._graph))
        assert [node.function.label() for node in copy.nodes if node.function is not None] == [
            "(col('x') > 2)",
            "y=(col('x') * 2)",
        ]
        env._graph = copy
        assert sorted(row["y"] for row in collected(stream)) == [6, 8, 10, 12, 14, 16]

    def test_columnar_data(self) -> None:
        pytest.importorskip("pyarrow")
        env = LocalEnvironment("columns")
        columns = env.from_columns({"x": list(range(10))}, batch_size=3)
        assert collected(columns.where(col("x") >= 7).select(y=col("x") * 2).rows()) == [
            {"y": 14},
            {"y": 16},
            {"y": 18},
        ]

    def test_rows_to_columns_and_back(self) -> None:
        pytest.importorskip("pyarrow")
        rows = [{"x": n} for n in range(2500)]
        stream = LocalEnvironment("columns").from_collection(rows).columns().where(col("x") % 2 == 0).rows()
        assert collected(stream) == rows[::2]

    def test_batches_can_be_mapped(self) -> None:
        pytest.importorskip("pyarrow")
        env = LocalEnvironment("columns")
        counted = env.from_columns({"x": list(range(10))}, batch_size=4).batches().map(lambda batch: batch.num_rows)
        assert collected(counted) == [4, 4, 2]

    def test_a_column_that_is_not_there(self) -> None:
        env = LocalEnvironment("columns")
        env.from_collection([{"x": 1}]).select(y=col("z") + 1).print()
        with pytest.raises(PipelineError, match=r"'select' failed \(.*test_columns.py:") as caught:
            env.submit()
        assert "KeyError: 'z' at record {'x': 1}" in str(caught.value)

    def test_explain_shows_the_expression(self) -> None:
        env = LocalEnvironment("columns")
        env.from_collection([{"x": 1}]).where(~(col("x") > 3)).select("x", y=-col("x")).print()
        text = env.explain()
        assert "where  invert((col('x') > 3))" in text
        assert "select  x, y=negate(col('x'))" in text

    @pytest.mark.parametrize(
        "build",
        [
            lambda stream: stream.where(lambda row: row["x"] > 3),
            lambda stream: stream.select(y=lambda row: row),
            lambda stream: stream.select(),
            lambda stream: stream.select(col("x") + 1),
        ],
    )
    def test_what_is_no_expression_is_refused_at_its_line(self, build: Any) -> None:
        with pytest.raises(PipelineError, match=r"needs an expression \(.*test_columns.py:"):
            build(LocalEnvironment("columns").from_collection([{"x": 1}]))

    def test_an_expression_has_no_truth_value(self) -> None:
        with pytest.raises(PipelineError, match="no truth value"):
            _ = 1 < col("x") < 3

    def test_columns_of_different_lengths_are_refused(self) -> None:
        pytest.importorskip("pyarrow")
        with pytest.raises(PipelineError, match=r"from_columns cannot read this \(.*test_columns.py:"):
            LocalEnvironment("columns").from_columns({"x": [1], "y": [1, 2]})

    def test_without_pyarrow_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(PipelineError, match="Columnar data needs pyarrow"):
            LocalEnvironment("columns").from_columns({"x": [1]})

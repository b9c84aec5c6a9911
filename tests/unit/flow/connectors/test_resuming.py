"""Every source with positions goes on exactly where a checkpoint was made (SPEC K10)."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.connectors.harness import context, read, reader

from sage.core.connectors.base import Source, Split
from sage.core.connectors.files.delimited import CsvRows
from sage.core.connectors.files.lines import JsonLines, TextLines
from sage.core.connectors.files.parquet import ParquetRows
from sage.core.connectors.files.source import FileSource
from sage.core.connectors.sequences import GeneratorSource, RangeSource
from sage.core.connectors.sql.source import SqlSource
from sage.core.state.serialization import dump, load

pytestmark = pytest.mark.spec("K10", "K6")
COUNT = 150


def _text(folder: Path) -> FileSource[Any]:
    lines = [f"{n}: {'é' * (n % 9)}" for n in range(COUNT)]
    (folder / "a.txt").write_bytes("\r\n".join(lines[:100]).encode() + b"\r\n")
    (folder / "b.txt").write_bytes("\n".join(lines[100:]).encode())
    return FileSource((str(folder),), TextLines(part_size=64))


def _packed(folder: Path) -> FileSource[Any]:
    with gzip.open(folder / "a.txt.gz", "wb") as file:
        file.write(b"".join(b"line %d\n" % n for n in range(COUNT)))
    return FileSource((str(folder / "*.gz"),), TextLines(part_size=16))


def _json(folder: Path) -> FileSource[Any]:
    text = "".join(f'{{"n": {n}}}\n\n' for n in range(COUNT))
    (folder / "a.jsonl").write_text(f"\ufeff{text}", encoding="utf-8")
    return FileSource((str(folder / "a.jsonl"),), JsonLines(part_size=100))


def _csv(folder: Path) -> FileSource[Any]:
    rows = "".join(f'{n},"two\nlines, {n}"\n' for n in range(COUNT))
    (folder / "a.csv").write_text(f"n,text\n{rows}")
    return FileSource((str(folder / "a.csv"),), CsvRows(types={"n": int}))


def _parquet(folder: Path) -> FileSource[Any]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"n": list(range(COUNT)), "text": [f"x{n}" for n in range(COUNT)]})
    parquet.write_table(table, folder / "a.parquet", row_group_size=40)
    return FileSource((str(folder / "a.parquet"),), ParquetRows())


def _range(folder: Path) -> Source[Any]:
    return RangeSource(COUNT, values=range(5, 5 + 2 * COUNT, 2))


def _generator(folder: Path) -> Source[Any]:
    return GeneratorSource(1000, None, lambda n: n * n)


def _sql(folder: Path) -> Source[Any]:
    with sqlite3.connect(folder / "a.db") as database:
        database.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER)")
        database.executemany("INSERT INTO numbers (n) VALUES (?)", [(n * 3,) for n in range(COUNT)])
    database.close()
    return SqlSource(str(folder / "a.db"), "numbers", "id", page=40)


def _alchemy(folder: Path) -> Source[Any]:
    pytest.importorskip("sqlalchemy")
    source = _sql(folder)
    assert isinstance(source, SqlSource)
    return SqlSource(f"sqlite:///{source.database}", "SELECT id, n FROM numbers WHERE n > 9", "id", page=40)


MAKERS: list[Callable[[Path], Source[Any]]] = [
    _text,
    _packed,
    _json,
    _csv,
    _parquet,
    _range,
    _generator,
    _sql,
    _alchemy,
]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__.strip("_"))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source[Any]:
    made: Source[Any] = request.param(tmp_path)
    return made


def test_one_reader_gives_everything_in_order(source: Source[Any]) -> None:
    records = read(reader(source))
    assert len(records) >= COUNT - 4
    keys = [tuple(r.values()) if isinstance(r, dict) else r for r in records]
    assert sorted(set(map(str, keys))) == sorted(map(str, keys))
    assert read(reader(source), limit=1000) == records


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 50))
def test_it_goes_on_at_the_next_record(source: Source[Any], cuts: list[int], limit: int) -> None:
    """The positions pass through the store, as in a checkpoint."""
    expected = read(reader(source))
    records: list[Any] = []
    made = reader(source)
    for cut in cuts:
        records += read(made, cut, limit)
        stored = load(dump([[split.id, split.position] for split in made.snapshot()]))
        made.close()
        made = reader(source, [Split(*entry) for entry in stored])
    records += read(made, None, limit)
    made.close()
    assert records == expected


@pytest.mark.parametrize("after", [2, 5])
def test_a_restore_with_another_parallelism_reads_each_record_once(source: Source[Any], after: int) -> None:
    expected = read(reader(source))
    records: list[Any] = []
    stored = []
    for subtask in range(3):
        made = reader(source, None, context(subtask, 3))
        records += read(made, 20)
        stored += made.snapshot()
        made.close()
    for subtask in range(after):
        records += read(reader(source, stored, context(subtask, after)))
    assert sorted(map(str, records)) == sorted(map(str, expected))


def test_what_was_read_to_its_end_is_not_begun_anew(source: Source[Any]) -> None:
    made = reader(source)
    assert read(made)
    assert read(reader(source, made.snapshot())) == []

"""Files as sources: what lines, rows and parts are, and what is told about bad ones (SPEC K10)."""

from __future__ import annotations

import codecs
import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.connectors.harness import ManualClock, context, everything, read, reader, until

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment
from sage.core.connectors.base import SourceReader
from sage.core.connectors.files.delimited import CsvRows
from sage.core.connectors.files.directory import DirectorySource
from sage.core.connectors.files.lines import JsonLines, TextLines
from sage.core.connectors.files.source import FileFormat, FileSource

pytestmark = pytest.mark.spec("K10")
FILES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(path: Path, file_format: FileFormat[Any] | None = None, **options: Any) -> list[Any]:
    return everything(FileSource((str(path),), file_format or TextLines(**options)))


@FILES
@given(
    st.lists(st.text("aé\r\x0b\u2028 ", max_size=5)), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 9)
)
def test_lines_are_those_between_newlines_however_the_file_is_cut(
    tmp_path: Path, texts: list[str], end: str, ended: bool, part_size: int
) -> None:
    texts = [text.replace("\r", "") if end == "\r\n" else text.rstrip("\r") for text in texts]
    file = tmp_path / "a.txt"
    file.write_bytes((end.join(texts) + (end if ended and texts else "")).encode())
    expected = texts if ended or not texts or texts[-1] else texts[:-1]
    assert lines(file, part_size=part_size) == expected


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(codecs.BOM_UTF8 + b"one\ntwo\n")
    assert lines(file) == ["one", "two"]
    file.write_bytes(codecs.BOM_UTF8 + b"n\n1\n")
    assert lines(file, CsvRows()) == [{"n": "1"}]


def test_folders_and_patterns_give_their_files_by_name_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.log", "a.log", "c.txt", ".hidden.log"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "folder").mkdir()
    assert lines(tmp_path) == ["a.log", "b.log", "c.txt"]
    assert lines(tmp_path / "*.log") == ["a.log", "b.log"]


def test_a_bad_line_fails_the_job_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(PipelineError, match=r"a\.jsonl has a bad line at byte 9"):
        lines(file, JsonLines())
    file.write_bytes(b"good\nb\xe4d\n")
    with pytest.raises(PipelineError, match=r"bad line at byte 5.*can't decode byte 0xe4"):
        lines(file)
    assert lines(file, encoding="latin-1") == ["good", "bäd"]
    assert lines(file, errors="replace") == ["good", "b\ufffdd"]


@pytest.mark.parametrize(
    ("file_format", "data", "good", "bad"),
    [
        (TextLines(), b"a\nb\xff\nc", ["a", "c"], ["b\\xff"]),
        (JsonLines(), b'1\n{"torn": \n\n[2]\n3 4\n', [1, [2]], ['{"torn": ', "3 4"]),
        (CsvRows(types={"n": int}), b'n,m\n1,a\n2\n\nx,b\n3,"c\xc3\xa9"\n', ["1a", "3cé"], ["2\n", "x,b\n"]),
        (CsvRows(), b'n,m\n1,a\n2,"torn\n3,b\n', ["1a"], ['2,"torn\n3,b\n']),
        (CsvRows(), b"n,m\n1,\xff\n2,b\n", ["2b"], ["1,\\xff\n"]),
    ],
    ids=["text", "json", "csv", "csv-torn", "csv-encoding"],
)
def test_bad_records_are_told_and_left_out_where_the_job_asks_for_that(
    file_format: FileFormat[Any], data: bytes, good: list[Any], bad: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(data)
    told: list[object] = []
    source: FileSource[Any] = FileSource((str(tmp_path / "a"),), file_format)
    records = everything(source, bad_record=lambda record, error: told.append(record))
    assert ["".join(map(str, r.values())) if isinstance(r, dict) else r for r in records] == good
    assert told == bad


def test_a_bad_record_becomes_a_dead_letter_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('1\n{"torn\n2\n')
    letters = tmp_path / "letters.jsonl"
    env = LocalEnvironment("bad", {"on_error": "dead-letter", "dead_letter.path": str(letters)})
    seen: list[int] = []
    env.from_jsonl(tmp_path / "a.jsonl").sink(seen.append)
    env.submit()
    assert seen == [1, 2]
    assert '"record": "{\\"torn"' in letters.read_text()


def test_a_bad_record_fails_the_job_at_the_users_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n2,3\n")
    env = LocalEnvironment("bad")
    env.from_csv(tmp_path / "a.csv").print()
    with pytest.raises(PipelineError, match=r"'from_csv' failed.*test_files.*2 values for 1 columns"):
        env.submit()


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ('n,text\n1,"a\nb"\n2,"say ""x"""\n', [{"n": "1", "text": "a\nb"}, {"n": "2", "text": 'say "x"'}]),
        ("n\n\n\n\n\n1\n\n2\n", [{"n": "1"}, {"n": "2"}]),
        ("n\n", []),
        ("", []),
    ],
    ids=["quotes", "blank", "header", "empty"],
)
def test_csv(data: str, rows: list[dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(data)
    assert lines(tmp_path / "a.csv", CsvRows()) == rows
    made = reader(FileSource((str(tmp_path / "a.csv"),), CsvRows()))
    assert read(made, len(rows), limit=2) == rows
    assert [position for _, position in (split.position for split in made.snapshot())] in ([len(data)], [None])
    made.close()


@FILES
@given(st.lists(st.tuples(st.text('a",\n é', max_size=4), st.text("b;\n", max_size=4)), min_size=1, max_size=20))
def test_csv_reads_what_pythons_writer_writes(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("x", "y"), *rows])
    (tmp_path / "a.csv").write_bytes(out.getvalue().encode())
    assert [(row["x"], row["y"]) for row in lines(tmp_path / "a.csv", CsvRows())] == rows


def test_columns_that_are_not_there_and_twice_the_same_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,n\n1,2\n")
    with pytest.raises(PipelineError, match="two columns of one name"):
        lines(tmp_path / "a.csv", CsvRows())
    assert lines(tmp_path / "a.csv", CsvRows(fields=("a", "b"))) == [{"a": "n", "b": "n"}, {"a": "1", "b": "2"}]
    with pytest.raises(PipelineError, match="has no column price"):
        lines(tmp_path / "a.csv", CsvRows(fields=("a", "b"), types={"price": float}))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"Cannot read .*nowhere: No such file"):
        lines(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match="no file matches"):
        lines(tmp_path / "*.txt")
    with pytest.raises(PipelineError, match="no file matches"):
        lines(tmp_path)
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    with pytest.raises(PipelineError, match=r"a\.gz is damaged"):
        lines(tmp_path / "a.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(PipelineError, match="Permission denied"):
        lines(tmp_path / "a.txt")


def test_the_hint_says_what_to_do_about_a_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x\n")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sage.core.connectors.files.paths.open", refused, raising=False)
    with pytest.raises(PipelineError, match="Permission denied") as caught:
        lines(tmp_path / "a.txt")
    assert "permission" in caught.value.hint


def test_a_file_that_has_become_shorter_is_not_read_on(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\nthree\n")
    source: FileSource[Any] = FileSource((str(file),), TextLines())
    made = reader(source)
    read(made, 2)
    stored = made.snapshot()
    made.close()
    file.write_text("one\n")
    made = reader(source, stored)
    with pytest.raises(PipelineError, match="shorter than it was"):
        read(made)


def test_a_torn_gzip_file(tmp_path: Path) -> None:
    import gzip

    whole = gzip.compress(os.urandom(5000).hex().encode())
    (tmp_path / "a.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match="is damaged"):
        lines(tmp_path / "a.gz")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "nonsense"])
def test_encodings_whose_lines_cannot_be_found_are_refused(encoding: str) -> None:
    with pytest.raises(PipelineError, match=encoding):
        LocalEnvironment("x").from_text("a", encoding=encoding)


def test_new_files_in_a_folder_are_read_after_a_restore_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    source: FileSource[Any] = FileSource((str(tmp_path),), TextLines())
    made = reader(source)
    read(made, 2)
    stored = made.snapshot()
    made.close()
    (tmp_path / "a.txt").write_text("1\n2\n3\n" + "4\n")
    (tmp_path / "b.txt").write_text("5\n")
    assert read(reader(source, stored)) == ["3", "4", "5"]


def test_parquet_columns_and_damage(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from sage.core.connectors.files.parquet import ParquetRows

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "m": ["a", "b", None]}), file, row_group_size=2)
    assert lines(file, ParquetRows(columns=("m",))) == [{"m": "a"}, {"m": "b"}, {"m": None}]
    assert [batch.num_rows for batch in lines(file, ParquetRows(columnar=True))] == [2, 1]
    with pytest.raises(PipelineError, match="has no column x"):
        lines(file, ParquetRows(columns=("x",)))
    whole = file.read_bytes()
    for torn in (whole[: len(whole) // 2], b"PAR1", b"", whole.replace(b"PAR1", b"XXXX")):
        file.write_bytes(torn)
        with pytest.raises(PipelineError, match="is damaged, or no Parquet file"):
            lines(file, ParquetRows())


def looked(made: SourceReader[Any]) -> list[Any]:
    """What is found in many looks."""
    return [record for _ in range(50) if isinstance(taken := made.poll(10, 0.0), list) for record in taken]


class TestDirectory:
    """Files that arrive."""

    def source(self, folder: Path, pattern: str = "*") -> DirectorySource[Any]:
        return DirectorySource((str(folder),), TextLines(), pattern, 5.0)

    def arrive(self, folder: Path, name: str, text: str, time: int) -> None:
        hidden = folder / f".{name}"
        hidden.write_text(text)
        os.utime(hidden, (time, time))
        hidden.rename(folder / name)

    def test_each_file_is_read_once_in_the_order_of_arrival(self, tmp_path: Path) -> None:
        clock = ManualClock()
        made = reader(self.source(tmp_path), None, context(clock=clock))
        assert made.poll(10, 0.0) == []
        self.arrive(tmp_path, "b", "1\n2\n", 100)
        self.arrive(tmp_path, "a", "3\n", 200)
        (tmp_path / ".unfinished").write_text("no\n")
        assert made.poll(10, 0.0) == []  # it is not time to look again
        clock.now += 5
        assert read(made, 3) == ["1", "2", "3"]
        clock.now += 5
        assert made.poll(10, 0.0) == []
        assert made.poll(10, 0.0) == []

    def test_it_goes_on_after_a_restore_and_forgets_files_that_are_gone(self, tmp_path: Path) -> None:
        clock = ManualClock()
        self.arrive(tmp_path, "a", "1\n2\n", 100)
        self.arrive(tmp_path, "b", "3\n4\n", 200)
        source = self.source(tmp_path)
        made = reader(source, None, context(clock=clock))
        assert read(made, 3, limit=1) == ["1", "2", "3"]
        stored = made.snapshot()
        made.close()
        self.arrive(tmp_path, "c", "5\n", 300)
        made = reader(source, stored, context(clock=clock))
        assert read(made, 2) == ["4", "5"]
        (tmp_path / "a").unlink()
        clock.now += 5
        assert made.poll(10, 0.0) == []
        assert made.poll(10, 0.0) == []
        assert {Path(split.id.rpartition("@")[0]).name for split in made.snapshot()} == {"b", "c"}

    def test_subtasks_share_the_files(self, tmp_path: Path) -> None:
        for number in range(20):
            self.arrive(tmp_path, f"{number}.txt", f"{number}\n", 100)
        self.arrive(tmp_path, "other.log", "no\n", 100)
        found: list[str] = []
        for subtask in range(3):
            made = reader(self.source(tmp_path, "*.txt"), None, context(subtask, 3))
            found += looked(made)
            made.close()
        assert sorted(map(int, found)) == list(range(20))

    def test_the_folder_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match="No such file"):
            self.source(tmp_path / "nowhere").splits()
        (tmp_path / "file").write_text("")
        with pytest.raises(PipelineError, match="is no folder"):
            self.source(tmp_path / "file").splits()

    def test_a_job_reads_on_until_it_is_cancelled(self, tmp_path: Path) -> None:
        env = LocalEnvironment("arrivals")
        seen: list[dict[str, str]] = []
        env.from_directory(tmp_path, "*.csv", format="csv", interval="10ms").sink(seen.append)
        handle = env.submit(block=False)
        self.arrive(tmp_path, "a.csv", "n\n1\n", 100)
        until(lambda: seen == [{"n": "1"}])
        handle.cancel()
        assert handle.wait(20) == "cancelled"
        with pytest.raises(PipelineError, match="no format of files"):
            env.from_directory(tmp_path, format="word")

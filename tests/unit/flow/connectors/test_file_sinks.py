"""Files as sinks: when parts appear, what a restore does, what each format writes (SPEC K10)."""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.connectors.harness import put, started, visible, writer

from sage.common.errors import PipelineError, StateError
from sage.core.api import LocalEnvironment
from sage.core.connectors.files.encoders import CsvEncoder, JsonEncoder, TextEncoder
from sage.core.connectors.files.parts import PartsSink
from sage.core.connectors.files.single import SingleFileSink

pytestmark = pytest.mark.spec("K10", "K6")


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


class TestParts:
    def sink(self, folder: Path, **options: Any) -> PartsSink:
        return PartsSink(str(folder), TextEncoder(), **options)

    def test_nothing_appears_before_the_commit_then_all_at_once(self, tmp_path: Path) -> None:
        made = started(self.sink(tmp_path))
        put(made, 1, 2)
        made.flush()
        assert visible(tmp_path) == []
        prepared = made.prepare(1)
        put(made, 3)
        assert visible(tmp_path) == []
        made.commit(prepared)
        assert visible(tmp_path) == ["1", "2"]
        made.commit(prepared)  # again, after a restore
        assert visible(tmp_path) == ["1", "2"]
        made.close()

    def test_a_restore_renames_what_was_promised_and_removes_the_rest(self, tmp_path: Path) -> None:
        made = started(self.sink(tmp_path))
        put(made, 1)
        promised = made.prepare(1)
        put(made, 2)
        made.prepare(2)
        put(made, 3)
        made.close()
        again = started(self.sink(tmp_path), promised)
        assert visible(tmp_path) == ["1"]
        assert hidden(tmp_path) == []
        put(again, 2, 3)
        again.commit(again.prepare(2))
        assert visible(tmp_path) == ["1", "2", "3"]
        again.close()

    def test_an_older_checkpoint_takes_back_what_came_after_it(self, tmp_path: Path) -> None:
        made = started(self.sink(tmp_path))
        stored = []
        for number in (1, 2, 3):
            put(made, number)
            stored.append(made.prepare(number))
            made.commit(stored[-1])
        made.close()
        (tmp_path / "part-00000-00000009-000-00000000.txt").write_text("another sink's\n")
        (tmp_path / "mine.txt").write_text("the user's\n")
        started(self.sink(tmp_path), stored[0]).close()
        assert visible(tmp_path) == ["the user's", "1", "another sink's"]
        started(self.sink(tmp_path)).close()
        assert visible(tmp_path) == ["the user's", "another sink's"]

    def test_appending_keeps_what_earlier_runs_wrote(self, tmp_path: Path) -> None:
        for record in ("one", "two"):
            made = started(self.sink(tmp_path, append=True))
            put(made, record)
            made.commit(made.prepare(0))
            put(made, "unfinished")
            made.close()
        assert sorted(visible(tmp_path)) == ["one", "two"]
        started(self.sink(tmp_path, append=True)).close()
        assert hidden(tmp_path) == []

    def test_a_subtask_leaves_what_another_has_still_to_commit(self, tmp_path: Path) -> None:
        stored = []
        for subtask in range(3):
            made = started(self.sink(tmp_path), (), subtask, 3)
            put(made, subtask)
            stored += made.prepare(1)
            made.close()
        assert len(hidden(tmp_path)) == 3
        writers = []
        for subtask in (1, 0):  # two of them now, in any order
            writers.append(started(self.sink(tmp_path), stored, subtask, 2))
            put(writers[-1], f"new {subtask}")
        assert sorted(visible(tmp_path)) == ["0", "1", "2"]
        for made in writers:
            made.commit(made.prepare(2))
            made.close()
        assert sorted(visible(tmp_path)) == ["0", "1", "2", "new 0", "new 1"]

    def test_large_parts_are_divided_in_order(self, tmp_path: Path) -> None:
        made = started(self.sink(tmp_path, roll_size=10))
        for number in range(100):
            put(made, number)
        made.commit(made.prepare(1))
        made.close()
        assert visible(tmp_path) == [str(number) for number in range(100)]
        assert len(list(tmp_path.iterdir())) > 20

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**32))
    def test_any_sequence_of_failures_gives_every_record_once(
        self, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The runtime's part is played here: checkpoints complete or not, notices are lost, runs begin again."""
        monkeypatch.setattr("os.fsync", lambda handle: None)  # nobody pulls the plug
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        state: tuple[int, list[Any]] = (0, [])  # the last complete checkpoint: next record, committables
        checkpoint, total = 0, 60
        while state[0] < total:
            parallelism = chance.randint(1, 3)
            writers = [started(self.sink(folder), state[1], n, parallelism) for n in range(parallelism)]
            assert sorted(map(int, visible(folder))) == list(range(state[0]))
            position = state[0]
            for _ in range(chance.randint(1, 6)):
                for _ in range(chance.randint(0, 8)):
                    put(chance.choice(writers), position)
                    position = min(position + 1, total)
                    if position == total:
                        break
                checkpoint += 1
                prepared = [made.prepare(checkpoint) for made in writers]
                if chance.random() < 0.4:
                    break
                state = (position, [entry for part in prepared for entry in part])
                for made, part in zip(writers, prepared, strict=True):
                    if chance.random() < 0.7:
                        made.commit(part)
                    else:
                        position = total + 1
                if position >= total:
                    break
            for made in writers:
                made.close()
        for made in [started(self.sink(folder), state[1])]:
            made.close()
        assert sorted(map(int, visible(folder))) == list(range(total))
        assert hidden(folder) == []


class TestSingle:
    def sink(self, file: Path) -> SingleFileSink:
        return SingleFileSink(str(file), TextEncoder())

    def test_a_restore_cuts_the_file_back(self, tmp_path: Path) -> None:
        file = tmp_path / "deep" / "out.txt"
        made = started(self.sink(file))
        put(made, 1, 2)
        stored = made.prepare(4)
        put(made, 3)
        made.flush()
        assert file.read_text() == "1\n2\n3\n"
        made.close()
        again = started(self.sink(file), stored)
        put(again, 4)
        again.prepare(5)
        again.close()
        assert file.read_text() == "1\n2\n4\n"
        started(self.sink(file)).close()
        assert file.read_text() == ""

    def test_a_file_that_was_cut_by_others_is_not_made_up(self, tmp_path: Path) -> None:
        made = started(self.sink(tmp_path / "out.txt"))
        put(made, "one")
        stored = made.prepare(1)
        made.close()
        (tmp_path / "out.txt").write_text("o")
        cut = writer(self.sink(tmp_path / "out.txt"))
        with pytest.raises(StateError, match="shorter than it was"):
            cut.recover(stored)
        cut.close()

    def test_a_full_device(self) -> None:
        made = started(self.sink(Path("/dev/full")))
        put(made, "x" * 10)
        with pytest.raises(PipelineError, match="Cannot write /dev/full: No space left on device") as caught:
            made.flush()
        assert "free space" in caught.value.hint
        made.close()

    def test_csv_goes_on_with_the_fields_of_the_file(self, tmp_path: Path) -> None:
        sink = SingleFileSink(str(tmp_path / "out.csv"), CsvEncoder())
        made = started(sink)
        put(made, {"a": 1, "b": 2})
        stored = made.prepare(1)
        made.close()
        again = started(sink, stored)
        put(again, {"b": 4, "a": 3})
        again.prepare(2)
        again.close()
        assert (tmp_path / "out.csv").read_text() == "a,b\n1,2\n3,4\n"


class Pair(NamedTuple):
    a: int
    b: str


@dataclasses.dataclass
class Row:
    a: int
    when: datetime.date


def test_formats(tmp_path: Path) -> None:
    import numpy

    assert JsonEncoder().encode([Row(1, datetime.date(2026, 1, 2)), numpy.float64(0.5), {"x": numpy.arange(2)}], b"")[
        0
    ].splitlines() == [b'{"a":1,"when":"2026-01-02"}', b"0.5", b'{"x":[0,1]}']
    assert TextEncoder("latin-1").encode(["é", 1], b"")[0] == b"\xe9\n1\n"
    assert CsvEncoder().encode([Pair(1, 'x"y'), Pair(2, "é")], b"")[0].decode() == 'a,b\n1,"x""y"\n2,é\n'
    assert CsvEncoder().encode([(1, 2), [3, None]], b"")[0] == b"1,2\n3,\n"
    assert CsvEncoder(("a", "b")).encode([(1, 2), {"b": 3}], b"")[0] == b"a,b\n1,2\n,3\n"


@pytest.mark.parametrize(
    ("encoder", "record", "said"),
    [
        (CsvEncoder(), 3, "A row must be a mapping"),
        (CsvEncoder(("a",)), {"a": 1, "c": 2}, "fields that the file has not: c"),
        (CsvEncoder(("a",)), (1, 2), "2 values for 1 fields"),
        (JsonEncoder(), {"x": object()}, "cannot be written as JSON"),
    ],
)
def test_a_record_that_does_not_fit_leaves_no_half_row(encoder: Any, record: object, said: str, tmp_path: Path) -> None:
    made = started(SingleFileSink(str(tmp_path / "out"), encoder))
    put(made, {"a": 0})
    before = made.prepare(1)
    with pytest.raises(PipelineError, match=said):
        put(made, {"a": 1}, record)
    assert [length for _, length in made.prepare(2)] == [length for _, length in before]
    made.close()


def test_parquet_parts_have_one_schema_and_refuse_rows_beside_it(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from sage.core.connectors.files.parquet import ParquetEncoder

    made = started(PartsSink(str(tmp_path), ParquetEncoder(group_rows=3)))
    put(made, {"a": 1}, {"a": 2})
    put(made, pyarrow.RecordBatch.from_pylist([{"a": 3}, {"a": 4}]), {"a": None})
    with pytest.raises(PipelineError, match="the file has no column b"):
        put(made, {"a": 1, "b": 2})
    with pytest.raises(PipelineError, match="do not fit"):
        put(made, {"a": "text"})
    made.commit(made.prepare(1))
    made.close()
    (part,) = tmp_path.iterdir()
    assert parquet.read_table(part)["a"].to_pylist() == [1, 2, 3, 4, None]
    assert parquet.ParquetFile(part).num_row_groups == 1


def test_a_disk_without_room_fails_the_job_and_leaves_nothing_visible(tmp_path: Path) -> None:
    """The kernel refuses to let files grow beyond a limit: with room again the next run is whole."""
    program = (
        "import resource, sys\n"
        "from sage.core.api import LocalEnvironment\n"
        "if sys.argv[2] != '0':\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "env = LocalEnvironment('full')\n"
        "env.from_range(20000).write_text(sys.argv[1], exactly_once=True)\n"
        "env.submit()\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", program, str(out)]
    full = subprocess.run([*command, "30000"], capture_output=True, text=True, check=False, timeout=60)
    assert full.returncode == 1
    assert "File too large" in full.stderr
    assert "ulimit" in full.stderr
    assert visible(out) == []
    subprocess.run([*command, "0"], check=True, timeout=60)
    assert visible(out) == [str(n) for n in range(20000)]
    assert hidden(out) == []


def test_the_streams_methods(tmp_path: Path) -> None:
    env = LocalEnvironment("all", {"parallelism": 2})
    rows = env.from_range(100, parallelism=2).map(lambda n: {"n": n})
    rows.write_jsonl(tmp_path / "jsonl", exactly_once=True)
    rows.write_csv(tmp_path / "one.csv")
    env.submit()
    assert sorted(json.loads(line)["n"] for line in visible(tmp_path / "jsonl")) == list(range(100))
    assert (tmp_path / "one.csv").read_text().splitlines()[0] == "n"
    again = LocalEnvironment("again")
    again.from_csv(tmp_path / "one.csv", types={"n": int}).map(lambda row: row["n"]).write_text(tmp_path / "n.txt")
    again.submit()
    assert sorted(map(int, (tmp_path / "n.txt").read_text().split())) == list(range(100))


def test_places_that_cannot_be_written_are_refused_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    stream = LocalEnvironment("x").from_range(1)
    with pytest.raises(PipelineError, match=r"file is no folder \(.*test_file_sinks"):
        stream.write_text(tmp_path / "file", exactly_once=True)
    with pytest.raises(PipelineError, match="one file here, with one subtask"):
        stream.write_text(tmp_path / "file", parallelism=2)
    assert (tmp_path / "file").read_text() == "mine"
    env = LocalEnvironment("y")
    env.from_range(1).write_text(tmp_path / "file" / "below")
    with pytest.raises(PipelineError, match=r"Cannot write .*below: (Not a directory|File exists)"):
        env.submit()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""Following a log file."""

from pathlib import Path

import pytest

from sage.tui.data.tail import LogTail, level_of, log_files


def test_the_last_lines_first_then_what_is_added(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("one\ntwo\n")
    tail = LogTail(log)
    first = tail.poll()
    assert (first.lines, first.fresh) == (("one", "two"), True)
    assert tail.poll().lines == ()
    with log.open("a") as file:
        file.write("three\nfo")
    added = tail.poll()
    assert (added.lines, added.fresh) == (("three",), False)
    with log.open("a") as file:
        file.write("ur\n")
    assert tail.poll().lines == ("four",)


def test_a_long_log_is_entered_near_its_end_at_a_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    lines = LogTail(log, first_bytes=25).poll().lines
    assert lines == ("line 998", "line 999")


def test_rotation_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("old\n")
    tail = LogTail(log)
    tail.poll()
    log.rename(tmp_path / "engine.log.1")
    assert tail.poll().problem == "no log yet"
    log.write_text("new\n")
    after = tail.poll()
    assert (after.lines, after.fresh) == (("new",), True)


def test_truncation_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("a long old line\n")
    tail = LogTail(log)
    tail.poll()
    log.write_text("short\n")
    after = tail.poll()
    assert (after.lines, after.fresh) == (("short",), True)


def test_what_is_not_there_or_not_readable_is_said(tmp_path: Path) -> None:
    assert LogTail(tmp_path / "none.log").poll().problem == "no log yet"
    assert LogTail(tmp_path).poll().problem == "Is a directory"


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 300_000)
    tail = LogTail(log, first_bytes=400_000)
    assert [len(line) for line in tail.poll().lines] == [2000]


def test_bytes_that_are_no_text_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"caf\xe9 \xf0\x28 \x1b[31mred\n")
    assert LogTail(log).poll().lines == ("caf\ufffd \ufffd( red",)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-01 12:00:00 ERROR engine: no", "error"),
        ("Traceback (most recent call last):", "error"),
        ('{"time": 1, "level": "warning", "event": "x"}', "warning"),
        ("WARNING: slow", "warning"),
        ("DEBUG x", "debug"),
        ("INFO ready", "info"),
        ("INFO " + "x" * 200 + " ERROR in the text", "info"),
    ],
)
def test_levels(line: str, level: str) -> None:
    assert level_of(line) == level


def test_the_logs_of_a_folder(tmp_path: Path) -> None:
    for name in ("gateway.log", "engine.log", "engine.log.1", "notes.txt"):
        (tmp_path / name).touch()
    assert list(log_files(tmp_path)) == ["engine", "gateway"]
    assert log_files(tmp_path / "none") == {}

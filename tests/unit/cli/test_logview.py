"""Logs: the last lines of each, then what is added, through rotation; names that are wrong."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.cli.logview import LogView
from sage.common.home import SageHome


@pytest.fixture
def logs(home: pathlib.Path) -> SageHome:
    """Two logs: engine with lines 0 to 299, gateway with one line."""
    found = SageHome(home).ensure()
    (found.logs / "engine.log").write_text("".join(f"line {i}\n" for i in range(300)))
    (found.logs / "gateway.log").write_text("up\n")
    (found.logs / "engine.log.1").write_text("old\n")
    return found


@pytest.mark.spec("X6")
def test_the_last_lines_of_one_log_are_printed_as_they_are(logs: SageHome, cli: Any) -> None:
    assert cli("llm", "logs", "engine", "--tail", "2").out == "line 298\nline 299\n"
    assert cli("llm", "logs", "engine", "-n", "0").out == ""
    assert len(cli("llm", "logs", "engine", "--tail=100").out.splitlines()) == 100


@pytest.mark.spec("X8")
def test_several_logs_say_which_line_is_whose(logs: SageHome, cli: Any) -> None:
    assert cli("monitor", "logs", "--tail", "1").out == "engine  | line 299\ngateway | up\n"


@pytest.mark.spec("X11")
def test_json_is_one_object_a_line(logs: SageHome, cli: Any) -> None:
    rows = [json.loads(line) for line in cli("llm", "logs", "--json", "--tail", "1").out.splitlines()]
    assert rows == [{"log": "engine", "line": "line 299"}, {"log": "gateway", "line": "up"}]


def test_a_wrong_name_finds_the_nearest(logs: SageHome, cli: Any) -> None:
    shown = cli("llm", "logs", "engin")
    assert shown.code == 2
    assert "Did you mean:  sage llm logs engine" in shown.err
    assert "engine, gateway" in shown.err


def test_what_is_added_comes_through_rotation_and_from_new_logs(logs: SageHome) -> None:
    """Nothing between the last lines and the first added one is lost, nothing comes twice."""
    steps: Iterator[Callable[[], None]] = iter(
        [
            lambda: append(logs, "engine", "a\n"),
            lambda: append(logs, "engine", "half"),
            lambda: append(logs, "engine", " a line\n"),
            lambda: rotate(logs, "engine", "after\n"),
            lambda: append(logs, "fresh", "new log\n"),
        ]
    )
    left = True

    def sleep(_: float) -> None:
        nonlocal left
        step = next(steps, None)
        left = step is not None
        if step is not None:
            step()

    view = LogView(logs, sleep=sleep)
    assert [line for _, line in view.last(1)] == ["line 299", "up"]
    assert list(view.added(stop=lambda: not left)) == [
        ("engine", "a"),
        ("engine", "half a line"),
        ("engine", "after"),
        ("fresh", "new log"),
    ]


def append(home: SageHome, name: str, text: str) -> None:
    with (home.logs / f"{name}.log").open("a") as file:
        file.write(text)


def rotate(home: SageHome, name: str, text: str) -> None:
    path = home.logs / f"{name}.log"
    path.rename(path.with_suffix(".log.1"))
    path.write_text(text)

"""Colour only where it is wanted; columns; spans of time."""

import io

import pytest

from sage.cli.output import colored, duration, style, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.spec("X11")
def test_no_color_and_pipes_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style("x", "red", stream=Terminal()) == "\033[31mx\033[0m"
    assert style("x", "red", stream=io.StringIO()) == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert not colored(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert colored(Terminal())


def test_columns_line_up() -> None:
    assert table([("a", "1"), ("long", "")], ("N", "V")) == ["N     V", "a     1", "long"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0042, "4 ms"),
        (1.25, "1.2 s"),
        (12, "12 s"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (356400, "4 d 3 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown

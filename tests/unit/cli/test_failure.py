"""Errors: one place, one shape, no traceback unless asked for, the right exit code."""

import errno
import os
from typing import Any

import pytest

from sage.cli import exit_codes
from sage.cli.failure import report
from sage.cli.main import main
from sage.common.errors import DaemonError, NotRunningError, SageError, StateError, UsageError


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SageError("It broke", cause="a reason", hint="sage do-this"), 1),
        (UsageError("Wrong", cause="a reason", hint="sage do-this"), 2),
        (NotRunningError("Nothing runs", cause="a reason", hint="sage do-this"), 3),
    ],
)
def test_what_why_next(error: SageError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error, debug=False, command="x") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0].startswith(f"error: {error.title}")
    assert error.code in lines[0]
    assert lines[1].split(None, 1) == ["why:", "a reason"]
    assert lines[2].split(None, 1) == ["next:", "sage do-this"]


def test_several_lines_stay_together(capsys: pytest.CaptureFixture[str]) -> None:
    report(SageError("Broken", cause="one\ntwo"), debug=False, command="x")
    assert capsys.readouterr().err.splitlines()[1:] == ["  why:  one", "        two"]


def test_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("surprise")
    except ValueError as error:
        caught = error
    assert report(caught, debug=False, command="llm status") == exit_codes.FAILED
    quiet = capsys.readouterr().err
    assert "Traceback" not in quiet
    assert "ValueError: surprise" in quiet
    assert "sage --debug llm status" in quiet
    report(caught, debug=True, command="llm status")
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_the_operating_system_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        open("/proc/version/no", encoding="utf-8").close()
    except OSError as error:
        caught = error
    assert report(caught, debug=False, command="x") == exit_codes.FAILED
    assert "/proc/version/no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "disk space"), (errno.EACCES, "access"), (errno.EIO, "--debug")]
)
def test_a_full_disk_and_a_closed_door_come_with_advice(
    number: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(OSError(number, os.strerror(number)), debug=False, command="x") == exit_codes.FAILED
    assert advice in capsys.readouterr().err.splitlines()[-1]


def test_interrupted_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt(), debug=True, command="x") == exit_codes.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.spec("X12")
def test_debug_is_taken_before_and_after_the_command_but_not_after_two_dashes(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["--debug", "init"], ["init", "--debug"]):
        monkeypatch.delenv("SAGE_DEBUG", raising=False)
        assert "Traceback" in cli(*words).err
    monkeypatch.delenv("SAGE_DEBUG", raising=False)
    assert "Traceback" not in cli("init").err
    assert "Traceback" not in cli("run", "nope.py", "--", "--debug").err
    monkeypatch.setenv("SAGE_DEBUG", "1")
    assert "Traceback" in cli("init").err


def test_main_returns_the_code(home: object) -> None:
    assert main(["help", "exit-codes"]) == 0
    assert "SAGE_DEBUG" not in os.environ


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (StateError("Cannot read it"), "sage check-env"),
        (DaemonError("It failed"), "sage llm status"),
        (StateError("Cannot read it", hint="do this"), "do this"),
    ],
)
def test_an_error_without_advice_gets_some(error: SageError, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error, debug=False, command="x") == exit_codes.FAILED
    assert capsys.readouterr().err.splitlines()[-1].endswith(advice)

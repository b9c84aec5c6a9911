"""Running the command line in this process, with its own home and folder."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sage.cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed and the code it gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty SAGE_HOME; the current folder is empty too."""
    folder = tmp_path / "home" / ".sage"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("SAGE_HOME", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    monkeypatch.delenv("SAGE_DEBUG", raising=False)
    monkeypatch.chdir(work)
    return folder


@pytest.fixture
def cli(home: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """A function that runs ``sage`` with the given words."""

    def run(*argv: str) -> Outcome:
        capsys.readouterr()
        code = main(argv)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run

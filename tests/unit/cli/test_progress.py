"""How a running pipeline looks: plain lines in a pipe, a table on a terminal, the pipeline's own lines above it."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from sage.cli.above import LinesAbove
from sage.cli.progress import PLAIN_EVERY_SECONDS, RunProgress, plain_line, progress_table
from sage.core.runner import ProgressSnapshot
from sage.core.runtime.metrics import CheckpointTotals, OperatorMetrics
from sage.core.runtime.rates import OperatorRates


def snapshot(name: str = "hello", *, records: int = 1200, errors: int = 0) -> ProgressSnapshot:
    operator = OperatorMetrics("map[str]", "map", 1, records, 800, errors, busy_s=0.1)
    return ProgressSnapshot(f"id-{name}", name, 30.0, records, 800, 40.4, [operator])


@pytest.mark.spec("X4")
def test_a_plain_line() -> None:
    assert plain_line(snapshot()) == "hello: 1,200 in, 800 out, 40 records/s, 30 s"


@pytest.mark.spec("X4", "X11")
def test_a_pipe_gets_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with RunProgress(clock=lambda: now) as progress:
        for _ in range(21):
            progress.update(snapshot())
            now += PLAIN_EVERY_SECONDS / 10
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [plain_line(snapshot())] * 2


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with RunProgress(quiet=True, clock=lambda: now) as progress:
        now = 1000.0
        progress.update(snapshot())
    assert capsys.readouterr().err == ""


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, highlight=False)


def shown(console: Console) -> str:
    file: Any = console.file
    return str(file.getvalue())


@pytest.mark.spec("X4")
def test_the_table_has_jobs_operators_and_errors() -> None:
    console = terminal()
    console.print(progress_table([snapshot(), snapshot("second", records=7, errors=3)]))
    text = shown(console)
    assert "hello  30 s" in text
    assert "1,200 in" in text
    assert "map[str]" in text  # brackets are no markup
    assert "3 errors" in text
    assert "second" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_lines_appear_above_the_display_and_are_not_wrapped() -> None:
    """Pieces are put together; what has no end of line is shown at the end; the stream's other parts are its own."""
    console = terminal(width=20)
    stream = io.StringIO()
    above = LinesAbove(console, stream)
    with Live(progress_table([snapshot()]), console=console, auto_refresh=False, transient=True):
        above.write("a line that is longer than twenty columns\nhalf")
        above.write(" a line [bold]\nno end")
        above.flush()
        above.finish()
    text = shown(console)
    assert "a line that is longer than twenty columns\n" in text
    assert "half a line [bold]\n" in text
    assert "no end\n" in text
    assert stream.getvalue() == ""
    assert above.isatty() is False  # type: ignore[operator]


@pytest.mark.spec("X4", "K11")
def test_the_table_tells_what_holds_a_pipeline_up() -> None:
    rates = {"map[str]": OperatorRates(40.0, busy=0.86, idle=0.0, blocked=0.4)}
    moved = replace(snapshot(), rates=rates, checkpoints=CheckpointTotals(3, 1, 4), restarts=1)
    console = terminal(120)
    console.print(progress_table([moved]))
    text = shown(console)
    assert "40/s  busy 86%  back-pressured 40%" in text
    assert "checkpoint 4, 1 restart" in text

"""Running a file: what `sage run local` stands on (SPEC X4, X11, X12)."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sage.common.errors import NotRunningError, PipelineError, UsageError
from sage.common.home import SageHome
from sage.common.store import StateStore
from sage.core.runner import ProgressSnapshot, RunReport, run_file

pytestmark = [pytest.mark.spec("X4")]

Run = Callable[..., RunReport]
HELLO = """
from sage.core.api import LocalEnvironment
env = LocalEnvironment("hello")
env.from_collection(range(10)).map(lambda x: x * 2).filter(lambda x: x > 4).print()
env.submit()
"""


@pytest.fixture
def run(tmp_path: pathlib.Path, home: SageHome) -> Run:
    """Runs a script given as text."""

    def run(text: str, **options: Any) -> RunReport:
        script = tmp_path / "pipeline.py"
        script.write_text(text, encoding="utf-8")
        return run_file(script, home=home, **options)

    return run


def test_a_pipeline_that_works(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(HELLO)
    assert capsys.readouterr().out.split() == ["6", "8", "10", "12", "14", "16", "18"]
    assert report.error is None
    assert report.exit_code == 0
    [job] = report.jobs
    assert (job.name, job.state, job.records_in, job.records_out) == ("hello", "finished", 10, 7)
    assert [(row.operator, row.records_in, row.records_out) for row in job.operators] == [
        ("from_collection", 10, 10),
        ("map", 10, 10),
        ("filter", 10, 7),
        ("print", 7, 7),
    ]
    assert job.seconds > 0


def test_the_job_is_recorded(run: Run, home: SageHome) -> None:
    [job] = run(HELLO).jobs
    with StateStore(home, readonly=True) as store:
        [row] = store.jobs()
        operators = store.operators(row.id)
    assert (row.id, row.name, row.state, row.records_in, row.records_out) == (job.id, "hello", "finished", 10, 7)
    assert row.path.endswith("pipeline.py")
    assert row.ended_at is not None
    assert {operator.operator: operator.records_out for operator in operators}["filter"] == 7


def test_progress_is_told(run: Run) -> None:
    seen: list[ProgressSnapshot] = []
    run(HELLO, on_progress=seen.append)
    assert seen[-1].name == "hello"
    assert seen[-1].records_in == 10
    assert seen[-1].records_out == 7
    assert [row.operator for row in seen[-1].operators] == ["from_collection", "map", "filter", "print"]


def test_a_display_that_fails_does_not_stop_the_job(run: Run) -> None:
    def broken(snapshot: ProgressSnapshot) -> None:
        raise RuntimeError("no screen")

    assert run(HELLO, on_progress=broken).exit_code == 0


def test_parallelism_overrides_the_scripts_own(run: Run) -> None:
    text = HELLO.replace('"hello")', '"hello", {"parallelism": 2})')
    assert [row.parallelism for row in run(text, parallelism=3).jobs[0].operators] == [1, 3, 3, 3]
    assert [row.parallelism for row in run(text).jobs[0].operators] == [1, 2, 2, 2]


def test_the_script_sees_its_arguments_folder_and_name(run: Run, tmp_path: pathlib.Path, capsys: Any) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    before = sys.argv, list(sys.path), sys.modules["__main__"]
    report = run(
        "import sys, beside\nprint(sys.argv[1:], beside.WORD, __name__, __file__)\n"
        "assert sys.modules['__main__'].__dict__ is globals()\n" + HELLO,
        argv=["--docs", "x"],
    )
    assert report.exit_code == 0
    shown = capsys.readouterr().out.splitlines()[0]
    assert shown == f"['--docs', 'x'] beside __main__ {tmp_path / 'pipeline.py'}"
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before


def test_jobs_that_were_not_waited_for_are(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(HELLO.replace("submit()", "submit(block=False)"))
    assert report.jobs[0].state == "finished"
    assert len(capsys.readouterr().out.split()) == 7


def test_services_are_closed_at_the_end(run: Run, tmp_path: pathlib.Path) -> None:
    report = run(
        f"""
from sage.core.api import LocalEnvironment
class Service:
    def close(self):
        open({str(tmp_path / "closed")!r}, "w").close()
env = LocalEnvironment("x")
env.register_service("s", Service)
env.call_service["s"]
env.from_collection([1]).print()
env.submit()
"""
    )
    assert report.exit_code == 0
    assert (tmp_path / "closed").exists()


@pytest.mark.spec("X12")
class TestErrors:
    def test_there_is_no_such_file(self, tmp_path: pathlib.Path) -> None:
        report = run_file(tmp_path / "nothing.py")
        assert isinstance(report.error, UsageError)
        assert "There is no file" in report.error.title
        assert report.exit_code == 2

    def test_a_folder(self, tmp_path: pathlib.Path) -> None:
        report = run_file(tmp_path)
        assert isinstance(report.error, UsageError)
        assert "is a folder" in report.error.title

    def test_a_syntax_error_names_its_line(self, run: Run) -> None:
        report = run("x = 1\nif x\n    pass\n")
        assert isinstance(report.error, PipelineError)
        assert "pipeline.py:2" in report.error.title
        assert report.exit_code == 1

    def test_something_that_is_no_text(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "binary.py").write_bytes(b"\x00\xff\xfe\x00")
        report = run_file(tmp_path / "binary.py")
        assert isinstance(report.error, PipelineError)

    def test_an_import_that_fails(self, run: Run) -> None:
        report = run("import os\nimport no_such_module_at_all\n")
        assert isinstance(report.error, PipelineError)
        assert "pipeline.py:2" in report.error.title
        assert "No module named 'no_such_module_at_all'" in report.error.cause
        assert "pip install no_such_module_at_all" in report.error.hint

    def test_an_operator_that_raises(self, run: Run, home: SageHome) -> None:
        report = run(HELLO.replace("x * 2", "1 // x"))
        assert isinstance(report.error, PipelineError)
        assert "'map'" in report.error.title
        assert "pipeline.py:4" in report.error.title
        assert report.exit_code == 1
        assert report.jobs[0].state == "failed"
        with StateStore(home, readonly=True) as store:
            [row] = store.jobs()
        assert row.state == "failed"
        assert "ZeroDivisionError" in row.error

    def test_a_script_that_raises(self, run: Run) -> None:
        report = run("def f():\n    raise ValueError('bad')\nf()\n")
        assert isinstance(report.error, PipelineError)
        assert "pipeline.py:2" in report.error.title
        assert report.error.cause == "ValueError: bad"
        assert isinstance(report.error.__cause__, ValueError)

    def test_an_error_of_sage_comes_through(self, run: Run) -> None:
        report = run("from sage.common.errors import NotRunningError\nraise NotRunningError('down', hint='serve')\n")
        assert isinstance(report.error, NotRunningError)
        assert report.exit_code == 3

    @pytest.mark.parametrize(("code", "expected"), [("0", 0), ("", 0), ("7", 7), ("'went wrong'", 1)])
    def test_exit_codes_of_the_script(self, run: Run, code: str, expected: int) -> None:
        assert run(f"{HELLO}\nimport sys\nsys.exit({code})\n").exit_code == expected

    def test_ctrl_c_in_the_script(self, run: Run) -> None:
        report = run("raise KeyboardInterrupt\n")
        assert isinstance(report.error, KeyboardInterrupt)
        assert report.exit_code == 130

    def test_a_pipeline_that_was_never_submitted(self, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
        report = run(HELLO.replace("env.submit()", ""))
        assert report.exit_code == 0
        assert any("never ran" in warning for warning in report.warnings)
        assert "env.submit()" in capsys.readouterr().err

    def test_a_file_without_a_pipeline(self, run: Run) -> None:
        assert run("x = 1\n").warnings == ["the file built no pipeline: nothing was run by the dataflow engine"]
        assert run("import argparse\nargparse.ArgumentParser().parse_args()\n", argv=["--help"]).warnings == []

    def test_stdout_that_nobody_reads(self, tmp_path: pathlib.Path) -> None:
        """`sage run local pipeline.py | head -1` ends without a word."""
        script = tmp_path / "pipeline.py"
        script.write_text(HELLO.replace("range(10)", "range(1_000_000)"))
        code = "import sys; from sage.core.runner import run_file; sys.exit(run_file(sys.argv[1]).exit_code)"
        with subprocess.Popen(
            [sys.executable, "-c", code, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "6\n"
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(30) == 1

    def test_a_home_that_cannot_be_written(self, run: Run, tmp_path: pathlib.Path, caplog: Any) -> None:
        """The pipeline runs; that it is not recorded is said once."""
        (tmp_path / "file").write_text("")
        script = tmp_path / "pipeline.py"
        script.write_text(HELLO)
        report = run_file(script, home=SageHome(tmp_path / "file" / ".sage"))
        assert report.exit_code == 0
        assert len([record for record in caplog.records if "not recorded" in record.message]) == 1


@pytest.mark.spec("K6")
def test_checkpoints_are_found_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        (folder / ".sage").mkdir(parents=True)
    (project / "pipeline.py").write_text(HELLO.replace('"hello"', '"hello", {"checkpoint.interval": "1h"}'))
    monkeypatch.delenv("SAGE_HOME", raising=False)
    monkeypatch.chdir(elsewhere)
    assert run_file("../project/pipeline.py").error is None
    assert len(list((project / ".sage" / "checkpoints").iterdir())) == 1
    monkeypatch.chdir(project)
    assert run_file("pipeline.py", restore="latest").error is None
    assert "hello continues from checkpoint 1" in capsys.readouterr().err

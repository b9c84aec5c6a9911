"""Runs a pipeline file as `python file.py` would, and reports what became of its jobs. `sage run` stands on this."""

from __future__ import annotations

import os
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from sage.common.errors import PipelineError, SageError, UsageError
from sage.core.graph.origin import Origin, raised_at
from sage.core.runtime import session
from sage.core.runtime.metrics import CheckpointTotals, OperatorMetrics
from sage.core.runtime.reporter import ProgressSnapshot

if TYPE_CHECKING:
    from sage.common.home import SageHome
    from sage.common.store import JobRow
    from sage.core.runtime.local.job import LocalJob
    from sage.core.runtime.local.replay import Replay

__all__ = ["JobReport", "ProgressSnapshot", "RunReport", "recorded_job", "run_file"]

INTERRUPTED = 130


@dataclass(slots=True)
class JobReport:
    """A job that ended. `state`: finished, failed or cancelled; `seconds`: how long it ran."""

    id: str
    name: str
    state: str
    records_in: int
    records_out: int
    seconds: float
    operators: list[OperatorMetrics]
    restarts: int = 0
    checkpoints: CheckpointTotals = field(default_factory=CheckpointTotals)


@dataclass(slots=True)
class RunReport:
    """What became of a file.

    `error` is a SageError, KeyboardInterrupt after Ctrl-C, SystemExit when the script ended with another exit code than
    0, or None. `warnings` were shown on stderr already.
    """

    jobs: list[JobReport] = field(default_factory=list)
    error: BaseException | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 ok, 1 failed, 2 usage, 3 not running, 130 interrupted, or the script's own."""
        if isinstance(self.error, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(self.error, SystemExit):
            return self.error.code if isinstance(self.error.code, int) else 1
        if isinstance(self.error, SageError):
            return self.error.exit_code
        return 1 if self.error is not None or any(job.state == "failed" for job in self.jobs) else 0


def run_file(
    path: str | os.PathLike[str],
    *,
    parallelism: int | None = None,
    restore: str | None = None,
    drop_state: bool = False,
    replay: Replay | None = None,
    argv: Sequence[str] = (),
    on_progress: Callable[[ProgressSnapshot], None] | None = None,
    home: SageHome | None = None,
) -> RunReport:
    """Run a pipeline file in this process and wait for all its jobs. Raises nothing: the report holds the error.

    The script sees `argv` in `sys.argv`, its folder first in `sys.path` and `__name__ == "__main__"`. `parallelism`
    overrides the script's own for operators that name none. `restore` is the checkpoint that its jobs continue from:
    `latest` (without one they start anew), the number of one, or the folder of a checkpoint or savepoint; with
    `drop_state` state of operators that are gone is dropped, else refused. Jobs are recorded in `home` (default: where
    SageHome.find looks, made if need be), and their checkpoints lie there (default: where it looks from the file's
    folder on). With `replay` jobs are only looked at, and not recorded. On Ctrl-C jobs with checkpoints make a last one
    and stop; in others sources stop and what was read runs out. A second Ctrl-C aborts.
    """
    file = Path(path)
    report = RunReport()
    try:
        code = _compiled(file)
        running = session.Session(
            parallelism=parallelism,
            restore=restore,
            drop_state=drop_state,
            home=home or _home(),
            beside_file=home is None,
            on_progress=on_progress,
            replay=replay,
            keeps=True,
        )
    except SageError as error:
        report.error = error
        return report
    with session.use(running):
        report.error = _without_reader(_run(file, code, argv, running))
        _warn_of_unsubmitted(running, report.error)
        for environment in running.environments:
            with suppress(SageError):
                environment.close()
    report.jobs = [_job_report(job) for job in running.jobs]
    report.warnings = running.warnings
    return report


def recorded_job(wanted: str, home: SageHome | None = None) -> JobRow:
    """The job of that id, or the latest of that name, from the state store. Raises UsageError, StateError."""
    from sage.common.store import StateStore

    where = home or _home()
    store = StateStore(where.ensure())
    try:
        known = store.jobs(limit=1000)
    finally:
        store.close()
    found = next((row for row in known if wanted in (row.id, row.name)), None)
    if found is None:
        latest = ", ".join(f"{row.id} ({row.name})" for row in known[:3]) or "none"
        raise UsageError(f"There is no job {wanted!r}", cause=f"the latest in {where.root}: {latest}")
    return found


def _home() -> SageHome:
    from sage.common.home import SageHome

    return SageHome.find()


def _compiled(file: Path) -> CodeType:
    """The script's code. Raises UsageError for a path that is no readable file, PipelineError for a syntax error."""
    if file.is_dir():
        raise UsageError(
            f"{file} is a folder", cause="a pipeline is a Python file", hint=f"sage run local {file}/pipeline.py"
        )
    try:
        with tokenize.open(file) as stream:
            text = stream.read()
        return compile(text, str(file), "exec", dont_inherit=True)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {file}", cause="a pipeline is a Python file", hint="ls *.py") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read", cause=error.strerror or str(error)) from error
    except SyntaxError as error:
        where = f"{file}:{error.lineno}" if error.lineno else str(file)
        raise PipelineError(f"Syntax error in {where}", cause=error.msg, hint=(error.text or "").strip()) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise PipelineError(f"{file} is no Python source", cause=str(error)) from error


def _run(file: Path, code: CodeType, argv: Sequence[str], running: session.Session) -> BaseException | None:
    """Run the script and wait for its jobs; what it raised, as the report tells it."""
    try:
        try:
            with _as_main(file, argv) as module:
                exec(code, module.__dict__)  # noqa: S102 - running the user's file is the point
            if not running.environments:  # not said to a script that left by itself, as after its own --help
                session.warn("the file built no pipeline: nothing was run by the dataflow engine")
        except SystemExit as error:
            if error.code not in (None, 0):
                _stop(running.jobs)
                if isinstance(error.code, str):
                    return PipelineError(f"{file} stopped", cause=error.code)
                return error
        for job in running.jobs:
            job.wait()
    except KeyboardInterrupt as error:
        _stop(running.jobs)
        return error
    except SageError as error:
        _stop(running.jobs)
        return error
    except Exception as error:  # the script may raise anything
        _stop(running.jobs)
        return _script_failed(file, error)
    return next((job.error for job in running.jobs if job.error is not None), None)


def _without_reader(error: BaseException | None) -> BaseException | None:
    """Nobody reads our stdout any more (`| head`): end without a word, and let Python's own last flush find no pipe."""
    if error is None or not isinstance(error.__cause__, BrokenPipeError):
        return error
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    return SystemExit(1)


def _stop(jobs: list[LocalJob]) -> None:
    """Let running jobs run out; a Ctrl-C meanwhile aborts them."""
    running = [job for job in jobs if job.ended_at is None]
    try:
        if running:
            session.say_stopping()
        for job in running:
            job.cancel()
        for job in jobs:
            job.wait()
    except KeyboardInterrupt:
        for job in jobs:
            job.abort()
        for job in jobs:
            job.wait(5.0)


@contextmanager
def _as_main(file: Path, argv: Sequence[str]) -> Iterator[ModuleType]:
    """The script's module in place of `__main__`, its arguments and its folder where it looks for them."""
    module = ModuleType("__main__")
    module.__file__ = str(file)
    module.__dict__["__builtins__"] = __builtins__
    before = sys.modules.get("__main__"), sys.argv, sys.path[:]
    sys.modules["__main__"] = module
    sys.argv = [str(file), *argv]
    sys.path.insert(0, str(file.resolve().parent))
    try:
        yield module
    finally:
        if before[0] is not None:
            sys.modules["__main__"] = before[0]
        sys.argv = before[1]
        sys.path[:] = before[2]


def _script_failed(file: Path, error: Exception) -> PipelineError:
    where = raised_at(error.__traceback__) or Origin(str(file), 1)
    kind = type(error).__name__
    hint = f"look at {where}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {error.name.partition('.')[0]}, or put the module beside {file.name}"
    failed = PipelineError(f"{file.name} failed ({where})", cause=f"{kind}: {error}" if str(error) else kind, hint=hint)
    failed.__cause__ = error
    return failed


def _warn_of_unsubmitted(running: session.Session, error: BaseException | None) -> None:
    if error is not None:
        return
    for environment in running.environments:
        left = environment.unsubmitted
        if left:
            session.warn(f"{environment.name!r} built {' → '.join(left)} but never ran it: call env.submit()")


def _job_report(job: LocalJob) -> JobReport:
    metrics = job.metrics()
    return JobReport(
        job.id,
        job.name,
        str(job.state),
        metrics.records_in,
        metrics.records_out,
        job.seconds,
        metrics.operators,
        metrics.restarts,
        metrics.checkpoints,
    )

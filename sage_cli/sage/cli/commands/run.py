"""``sage run local FILE``: runs a pipeline file here, shows how it goes, ends with the job's exit code."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click import Context
from typer.core import TyperCommand

from sage.cli import exit_codes
from sage.cli.output import duration, emit_json, say
from sage.cli.signals import term_like_ctrl_c
from sage.common.errors import NotRunningError, SageError, UsageError

if TYPE_CHECKING:
    from sage.core.runner import JobReport, RunReport
    from sage.core.runtime.local.replay import Replay


class RunCommand(TyperCommand):
    """Takes the optional word ``local`` before everything else (``./local`` names a file of that name)."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args[1:] if args[:1] == ["local"] else args)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        return ["[local]", "[OPTIONS]", "[FILE]", "[-- ARGS...]"]


FileOption = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="The pipeline: a Python file.", show_default=False)
]
ArgsOption = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGS]...", help="The file's own arguments.", show_default=False)
]
RestoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Continue from a checkpoint: latest, its number, or a savepoint's folder.",
        show_default=False,
    ),
]
DropOption = Annotated[
    bool,
    typer.Option("--allow-non-restored-state", help="With --restore: drop the state of operators that are gone."),
]
ReplayOption = Annotated[
    str | None,
    typer.Option(metavar="JOB", help="Look at a job again: its id, or its name for the latest.", show_default=False),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="CHECKPOINT",
        help="Where the replay begins: latest, a number, a folder, or start.",
        show_default=False,
    ),
]
UntilOption = Annotated[int | None, typer.Option(min=1, metavar="RECORD", help="How many records the replay shows.")]
OperatorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Show what this operator puts out, not what reaches the sinks.",
        show_default=False,
    ),
]


def run(
    file: FileOption = None,
    args: ArgsOption = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", "-p", min=1, metavar="N", help="Tasks per operator.")
    ] = None,
    restore: RestoreOption = None,
    drop_state: DropOption = False,
    replay: ReplayOption = None,
    start: FromOption = None,
    until: UntilOption = None,
    operator: OperatorOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Run a pipeline file on this machine.

    What the pipeline prints goes to stdout (with --json to stderr); progress and the summary go to stderr. Ctrl-C or
    SIGTERM stops it cleanly, a second one at once.

    With --replay a job runs again from a checkpoint, and what reaches its sinks is shown; nothing is written, and
    services answer from what was recorded (services.record: true in the pipeline's configuration).
    """
    if drop_state and restore is None:
        raise UsageError("--allow-non-restored-state belongs to --restore", hint="sage run --restore latest ...")
    path, parallelism, replayed = _replayed(file, parallelism, restore, replay, start, until, operator)
    if replayed is None:
        path = _existing(path, list(args or ()))
    from sage.cli.progress import RunProgress
    from sage.core.runner import run_file

    # The summary alone is stdout's with --json: what the pipeline prints then goes to stderr.
    out = redirect_stdout(sys.stderr) if json else nullcontext()
    with term_like_ctrl_c(), out, RunProgress(quiet=json) as progress:
        report = run_file(
            path,
            parallelism=parallelism,
            restore=restore,
            drop_state=drop_state,
            replay=replayed,
            argv=tuple(args or ()),
            on_progress=progress.update,
        )
    if json:
        emit_json(_as_dict(report))
    else:
        for job in report.jobs:
            say(_summary(job))
    raise typer.Exit(_finish(report))


run.command_class = RunCommand  # type: ignore[attr-defined]


def _replayed(
    file: Path | None,
    parallelism: int | None,
    restore: str | None,
    job: str | None,
    start: str | None,
    until: int | None,
    operator: str | None,
) -> tuple[Path, int | None, Replay | None]:
    """The file, its parallelism and what is to be replayed: those of the recorded job where none is given."""
    if job is None:
        if start is not None or until is not None or operator is not None:
            raise UsageError("--from, --until and --operator belong to --replay JOB", hint="sage run --replay JOB ...")
        if file is None:
            raise UsageError("Which pipeline?", cause="FILE is missing", hint="sage run local pipeline.py")
        return file, parallelism, None
    if start is None or restore is not None:
        raise UsageError(
            "A replay begins at a checkpoint",
            cause="--from is missing" if start is None else "--restore continues a job, --from looks at one",
            hint=f"sage run --replay {job} --from latest",
        )
    from sage.core.runner import recorded_job
    from sage.core.runtime.local.replay import START, Replay

    row = recorded_job(job)
    wanted = Replay(row.id, None if start == START else start, until, operator)
    return file or Path(row.path), parallelism or row.parallelism, wanted


def _existing(file: Path, args: list[str]) -> Path:
    """The pipeline file, or an error that names what is like it nearby."""
    if file.is_file():
        return file
    title = f"{file} is a folder, not a pipeline file" if file.is_dir() else f"There is no pipeline file {str(file)!r}"
    from sage.cli.suggest import nearest

    if args and nearest(str(file), ["local"]):
        raise UsageError(title, hint=f"Did you mean:  sage run local {' '.join(args)}")
    folder = file if file.is_dir() else file.parent
    scripts = sorted(entry.name for entry in folder.glob("*.py")) if folder.is_dir() else []
    if not scripts:
        where = f"No *.py file is in {folder.resolve()}." if folder.is_dir() else f"The folder {folder} does not exist."
        raise UsageError(title, cause=where, hint="A project that runs at once:  sage init my-project")
    best = (nearest(file.name, scripts) or scripts)[0]
    shown = ", ".join(scripts[:6]) + (", …" if len(scripts) > 6 else "")
    raise UsageError(title, cause=f"{folder.resolve()} holds: {shown}", hint=f"sage run local {folder / best}")


def _summary(job: JobReport) -> str:
    rate = f", {job.records_in / job.seconds:,.0f} records/s" if job.seconds > 0 and job.records_in else ""
    more = ""
    if job.checkpoints.completed or job.checkpoints.failed:
        more = f", {_many(job.checkpoints.completed, 'checkpoint')}"
        more += f" ({job.checkpoints.failed:,} failed)" if job.checkpoints.failed else ""
    more += f", {_many(job.restarts, 'restart')}" if job.restarts else ""
    late = sum(operator.late for operator in job.operators)
    counts = f"{job.records_in:,} in, {job.records_out:,} out{f', {late:,} late' if late else ''}"
    return f"{job.name} {job.state}: {counts}, {duration(job.seconds)}{rate}{more}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _as_dict(report: RunReport) -> dict[str, Any]:
    from dataclasses import asdict

    error = report.error
    told: object = error.to_dict() if isinstance(error, SageError) else error and str(error)
    return {
        "ok": report.exit_code == exit_codes.OK,
        "exit_code": report.exit_code,
        "error": told or None,
        "warnings": report.warnings,
        "jobs": [asdict(job) for job in report.jobs],
    }


def _finish(report: RunReport) -> int:
    """The exit code of the jobs; raises the error that stopped them."""
    error = report.error
    if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
        return report.exit_code
    missing = _not_running(error)
    if missing is not None and missing is not error:
        cause = "\n".join(filter(None, (missing.cause, getattr(error, "title", str(error)))))
        raise NotRunningError(missing.title, cause=cause, hint=missing.hint, code=missing.code) from error
    raise error


def _not_running(error: BaseException) -> SageError | None:
    """The NotRunningError beneath a pipeline's error, where there is one: it decides exit code and advice."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, NotRunningError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None

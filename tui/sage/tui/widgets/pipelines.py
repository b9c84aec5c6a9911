"""Pipelines: the jobs, and the operators of the one that is selected."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from sage.tui.data.model import JobView, OperatorView, Snapshot
from sage.tui.format import clip, count, duration, percent, rate, spark
from sage.tui.widgets.draw import dim, line, mark, stack
from sage.tui.widgets.table import Cell, Column, LiveTable

__all__ = ["JobDetail", "JobTable", "OperatorTable"]


class JobTable(LiveTable):
    """Jobs, the newest first."""

    COLUMNS = (
        Column("Pipeline", 0),
        Column("State", 11),
        Column("In", 6, right=True),
        Column("Out", 6, right=True),
        Column("Out/s", 6, right=True),
        Column("Time", 8, right=True),
        Column("Recent", 12, above=70),
    )

    def show(self, snapshot: Snapshot) -> None:
        """Follow the newest snapshot."""
        self.border_title = "Pipelines"
        live = sum(job.state == "running" for job in snapshot.jobs)
        self.border_subtitle = f"{live} running of {len(snapshot.jobs)}" if snapshot.jobs else "sage run pipeline.py"
        self.put([(job.id, _job(job)) for job in snapshot.jobs])


def _job(job: JobView) -> tuple[Cell, ...]:
    return (
        Cell(job.name or job.id),
        Cell.state(job.state),
        Cell(count(job.records_in)),
        Cell(count(job.records_out)),
        Cell(rate(job.rate)),
        Cell(duration(job.seconds)),
        Cell(spark(job.rate_history, 12), "primary"),
    )


class OperatorTable(LiveTable):
    """The operators of one job, in the order in which they were recorded."""

    COLUMNS = (
        Column("Operator", 0),
        Column("Kind", 10, above=70),
        Column("In", 6, right=True),
        Column("Out", 6, right=True),
        Column("In/s", 6, right=True),
        Column("Busy", 5, right=True),
        Column("Queue", 5, right=True),
        Column("Errors", 6, right=True),
    )

    def show(self, job: JobView | None) -> None:
        """Follow the selected job."""
        self.border_title = "Operators"
        self.put([(operator.name, _operator(operator)) for operator in job.operators] if job else [])


def _operator(operator: OperatorView) -> tuple[Cell, ...]:
    busiest = (operator.busy or 0.0) >= 0.8
    return (
        Cell(operator.name),
        Cell(operator.kind, "muted"),
        Cell(count(operator.records_in)),
        Cell(count(operator.records_out)),
        Cell(rate(operator.rate)),
        Cell(percent(operator.busy), "warning" if busiest else ""),
        Cell(str(operator.queue)),
        Cell(str(operator.errors), "error" if operator.errors else ""),
    )


class JobDetail(Static):
    """The selected job in words: where it comes from, what went wrong."""

    DEFAULT_CLASSES = "panel"

    def show(self, job: JobView | None) -> None:
        """Follow the selected job."""
        self.border_title = "Job"
        if job is None:
            self.update(line(dim("No pipeline has run here.  "), "sage run pipeline.py"), layout=False)
            return
        width = max(20, self.content_size.width)
        tasks = f"{job.parallelism} task{'s' * (job.parallelism != 1)}"
        lines: list[Content] = [
            line(mark(job.state), f"  {job.name}", dim(f"  {job.id} · {tasks} · pid {job.pid}")),
            line(dim(clip(job.path, width))),
        ]
        if job.error:
            lines.append(line((clip(job.error.splitlines()[0], width), "$text-error")))
        elif job.rate_history:
            trend = spark(job.rate_history, min(60, width - 12)).lstrip()
            lines.append(line(f"{rate(job.rate)}/s ", (trend, "$primary")))
        self.update(stack(lines), layout=False)

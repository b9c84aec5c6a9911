"""Pipelines: the jobs, and the operators of the one that is selected."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from sage.tui.data.model import CheckpointView, JobView, OperatorView, Snapshot
from sage.tui.format import clip, count, duration, latency, percent, rate, size, spark
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
    """The operators of one job, in the order in which records pass them. Full: the share of time in which receivers
    are (back-pressure)."""

    COLUMNS = (
        Column("Operator", 0),
        Column("Kind", 10, above=70),
        Column("In", 6, right=True),
        Column("Out", 6, right=True),
        Column("Rec/s", 6, right=True),
        Column("Busy", 5, right=True),
        Column("Full", 5, right=True, above=70),
        Column("Idle", 5, right=True, above=100),
        Column("Queue", 5, right=True),
        Column("P99", 8, right=True, above=100),
        Column("Lag", 7, right=True, above=100),
        Column("State", 9, right=True, above=100),
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
        Cell(percent(operator.blocked), "warning" if (operator.blocked or 0.0) >= 0.5 else ""),
        Cell(percent(operator.idle), "muted"),
        Cell(str(operator.queue)),
        Cell(latency(operator.latency_p99)),
        Cell(duration(operator.lag_s)),
        Cell(size(operator.state_bytes) if operator.state_bytes else "–"),
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
            told = _checkpoint(job.checkpoint, width)
            room = max(8, min(60, width - 12 - len(told.plain)))
            trend = spark(job.rate_history, room).lstrip()
            lines.append(line(f"{rate(job.rate)}/s ", (trend, "$primary"), "  ", told))
        elif job.checkpoint is not None:
            lines.append(_checkpoint(job.checkpoint, width))
        self.update(stack(lines), layout=False)


def _checkpoint(last: CheckpointView | None, width: int) -> Content:
    """``checkpoint 12  310 ms, +1.2 MiB of 40 MiB, 2 failed``; nothing where there is none."""
    if last is None:
        return Content("")
    if last.state == "failed":
        told = f"checkpoint {last.number} failed: {last.error.splitlines()[0] if last.error else ''}"
        return line((clip(told, width // 2), "$text-error"))
    failed = f", {last.failed} failed" if last.failed else ""
    text = f"  {latency(last.seconds)}, +{size(last.written)} of {size(last.size)}{failed}"
    return line(f"checkpoint {last.number}", dim(clip(text, max(0, width - 14))))

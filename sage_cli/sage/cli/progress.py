"""How running pipelines look: a live table on a terminal, a plain line every few seconds in a pipe; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, cast

from sage.cli.output import colored, duration, say

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from sage.cli.above import LinesAbove
    from sage.core.runner import ProgressSnapshot
    from sage.core.runtime.metrics import OperatorMetrics
    from sage.core.runtime.rates import OperatorRates

PLAIN_EVERY_SECONDS = 5.0
QUIET_SECONDS = 3.0
_MAX_OPERATORS = 8


class RunProgress:
    """Context manager; give :meth:`update` to ``run_file``. ``quiet`` shows nothing.

    On a terminal every job that has moved within the last seconds has its rows.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._next_line = clock() + PLAIN_EVERY_SECONDS
        self._jobs: dict[str, tuple[float, ProgressSnapshot]] = {}
        self._live: Live | None = None
        self._above: LinesAbove | None = None

    def __enter__(self) -> Self:
        if not self._quiet and colored(sys.stderr):
            from rich.console import Console
            from rich.live import Live

            from sage.cli.above import LinesAbove

            console = Console(stderr=True, highlight=False)
            self._live = Live(console=console, refresh_per_second=8, transient=True, redirect_stdout=False)
            self._live.start()
            if sys.stdout.isatty():
                self._above = LinesAbove(console, sys.stdout)
                sys.stdout = cast("TextIO", self._above)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._above is not None:
            self._above.finish()
            sys.stdout = self._above.stream
            self._above = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Show where a job stands; called from the job's own thread."""
        now = self._clock()
        if self._live is not None:
            self._jobs[snapshot.job_id] = now, snapshot
            moving = [shown for at, shown in list(self._jobs.values()) if now - at <= QUIET_SECONDS]
            self._live.update(progress_table(moving))
        elif not self._quiet and now >= self._next_line:
            self._next_line = now + PLAIN_EVERY_SECONDS
            say(plain_line(snapshot))


def plain_line(snapshot: ProgressSnapshot) -> str:
    """``hello: 1,200 in, 800 out, 40 records/s, 30 s``."""
    return (
        f"{snapshot.name}: {snapshot.records_in:,} in, {snapshot.records_out:,} out, "
        f"{snapshot.rate:,.0f} records/s, {duration(snapshot.elapsed_s)}"
    )


def progress_table(snapshots: list[ProgressSnapshot]) -> Table:
    """A row a job and one for each of its first operators: records in, out, rate, and what holds it up."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    for snapshot in snapshots:
        grid.add_row(
            Text.assemble((snapshot.name, "bold"), (f"  {duration(snapshot.elapsed_s)}", "dim")),
            f"{snapshot.records_in:,} in",
            f"{snapshot.records_out:,} out",
            Text(f"{snapshot.rate:,.0f}/s", "cyan"),
            Text(_kept(snapshot), "dim"),
        )
        for row in snapshot.operators[:_MAX_OPERATORS]:
            rates = snapshot.rates.get(row.operator)
            grid.add_row(
                Text(f"  {row.operator}", "dim"),
                f"{row.records_in:,}",
                f"{row.records_out:,}",
                Text(f"{rates.rate:,.0f}/s" if rates is not None else "", "dim"),
                _load(row, rates),
            )
    return grid


def _load(row: OperatorMetrics, rates: OperatorRates | None) -> Text:
    """``busy 86%``, ``back-pressured 40%``, ``5 late``, ``3 errors``: what is worth a look."""
    from rich.text import Text

    text = Text()
    if rates is not None and rates.busy >= 0.005:
        text.append(f"busy {rates.busy:.0%}  ", "yellow" if rates.busy >= 0.8 else "dim")
    if rates is not None and rates.blocked >= 0.05:
        text.append(f"back-pressured {rates.blocked:.0%}  ", "yellow" if rates.blocked >= 0.5 else "dim")
    if row.late:
        text.append(f"{row.late:,} late  ", "yellow")
    if row.errors:
        text.append(f"{row.errors:,} errors", "red")
    return text


def _kept(snapshot: ProgressSnapshot) -> str:
    """``checkpoint 3, 1 restart``: nothing where there is neither."""
    last = snapshot.checkpoints.last_id
    parts = [f"checkpoint {last}"] if last is not None else []
    if snapshot.restarts:
        parts.append(f"{snapshot.restarts} restart{'s' * (snapshot.restarts != 1)}")
    return ", ".join(parts)

"""How a running pipeline looks: a live table on a terminal, a plain line every few seconds in a pipe; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sage.cli.output import colored, duration, say

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from sage.core.runner import ProgressSnapshot

PLAIN_EVERY_SECONDS = 5.0
_MAX_OPERATORS = 8


class RunProgress:
    """Context manager; give :meth:`update` to ``run_file``. ``quiet`` shows nothing."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._next_line = clock() + PLAIN_EVERY_SECONDS
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and colored(sys.stderr):
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False)
            # Lines that the pipeline prints appear above the table; a redirected stdout is left alone.
            self._live = Live(
                console=console, refresh_per_second=8, transient=True, redirect_stdout=sys.stdout.isatty()
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Show where the job stands; called from the job's own thread."""
        if self._live is not None:
            self._live.update(_table(snapshot))
        elif not self._quiet and self._clock() >= self._next_line:
            self._next_line = self._clock() + PLAIN_EVERY_SECONDS
            say(plain_line(snapshot))


def plain_line(snapshot: ProgressSnapshot) -> str:
    """``hello: 1,200 in, 800 out, 40 records/s, 30 s``."""
    return (
        f"{snapshot.name}: {snapshot.records_in:,} in, {snapshot.records_out:,} out, "
        f"{snapshot.rate:,.0f} records/s, {duration(snapshot.elapsed_s)}"
    )


def _table(snapshot: ProgressSnapshot) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    grid.add_row(
        f"[bold]{snapshot.name}[/] [dim]{duration(snapshot.elapsed_s)}[/]",
        f"{snapshot.records_in:,} in",
        f"{snapshot.records_out:,} out",
        f"[cyan]{snapshot.rate:,.0f}/s[/]",
    )
    shown = list(snapshot.operators)[:_MAX_OPERATORS]
    for row in shown:
        failed = f"[red]{row.errors:,} errors[/]" if row.errors else ""
        grid.add_row(f"  [dim]{row.operator}[/]", f"{row.records_in:,}", f"{row.records_out:,}", failed)
    return grid

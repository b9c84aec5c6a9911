"""The supervised processes, one a row."""

from __future__ import annotations

from sage.tui.data.model import DaemonView, Snapshot
from sage.tui.format import duration, percent, size
from sage.tui.widgets.table import Cell, Column, LiveTable

__all__ = ["DaemonTable"]


class DaemonTable(LiveTable):
    """Daemons with state, process, address and cost."""

    COLUMNS = (
        Column("Daemon", 0),
        Column("State", 12),
        Column("Pid", 7, right=True),
        Column("Port", 5, right=True),
        Column("Restarts", 8, right=True),
        Column("Up", 7, right=True),
        Column("CPU", 5, right=True, above=66),
        Column("Memory", 8, right=True, above=66),
    )

    def show(self, snapshot: Snapshot) -> None:
        """Follow the newest snapshot."""
        stack = snapshot.stack
        self.border_title = "Daemons"
        if not stack.daemons:
            self.border_subtitle = ""
        elif stack.supervisor_alive:
            self.border_subtitle = f"supervisor {stack.supervisor_pid}"
        else:
            self.border_subtitle = "no supervisor"
        self.put([(daemon.name, _cells(daemon)) for daemon in stack.daemons])


def _cells(daemon: DaemonView) -> tuple[Cell, ...]:
    return (
        Cell(daemon.name),
        Cell.state(daemon.state),
        Cell("–" if daemon.pid is None else str(daemon.pid)),
        Cell("–" if daemon.port is None else str(daemon.port)),
        Cell(str(daemon.restarts), "warning" if daemon.restarts else ""),
        Cell(duration(daemon.uptime_s)),
        Cell(percent(daemon.cpu)),
        Cell(size(daemon.rss)),
    )

"""The dashboard's screen: the panels, which of them a view shows, and what the keys do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.markup import escape
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from sage.common.home import SageHome
from sage.tui.commands import sage
from sage.tui.data import Collector, JobView, Snapshot, Tail, log_files
from sage.tui.feed import Feed
from sage.tui.screens.confirm import ConfirmScreen
from sage.tui.screens.detail import DetailScreen
from sage.tui.screens.empty import empty_state
from sage.tui.screens.help import HelpScreen
from sage.tui.widgets import (
    DaemonTable,
    EmbeddingPanel,
    EnginePanel,
    GatewayPanel,
    JobDetail,
    JobTable,
    LogsPanel,
    OperatorTable,
    SystemPanel,
    TopBar,
)
from sage.tui.widgets.panel import Panel
from sage.tui.widgets.table import LiveTable
from sage.tui.widgets.topbar import VIEWS

__all__ = ["MonitorScreen"]


class MonitorScreen(Screen[None]):
    """Everything about one ``.sage`` home, in three views: overview, pipelines, logs."""

    HORIZONTAL_BREAKPOINTS = [(0, "-compact"), (120, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?", id="help"),
        Binding("1", "view('overview')", "Overview", show=False, id="view.overview"),
        Binding("2", "view('pipelines')", "Pipelines", show=False, id="view.pipelines"),
        Binding("3", "view('logs')", "Logs", show=False, id="view.logs"),
        Binding("l", "daemon_log", "Log", id="daemon.log"),
        Binding("R", "restart", "Restart", id="daemon.restart"),
        Binding("slash", "search", "Filter log", key_display="/", id="logs.search"),
        Binding("f", "follow", "Follow log", show=False, id="logs.follow"),
        Binding("w", "wrap", "Wrap log lines", show=False, id="logs.wrap"),
        Binding("right_square_bracket", "next_log(1)", "Next log", key_display="]", show=False, id="logs.next"),
        Binding("left_square_bracket", "next_log(-1)", "Previous log", key_display="[", show=False, id="logs.previous"),
        Binding("p", "pause", "Pause", id="pause"),
        Binding("r", "refresh_now", "Refresh now", show=False, id="refresh"),
        Binding("plus,equals_sign", "faster(1)", "Refresh more often", key_display="+", show=False, id="faster"),
        Binding("minus", "faster(-1)", "Refresh less often", key_display="-", show=False, id="slower"),
        Binding("e", "next_engine", "Next engine", show=False, id="engine.next"),
        Binding("q", "app.quit", "Quit", id="quit"),
    ]

    def __init__(
        self, home: SageHome, collector: Collector, interval: float = 1.0, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self._wall = wall
        self.home = home
        self.view = VIEWS[0]
        self.snapshot: Snapshot | None = None
        self.feed = Feed(collector, self.look, interval)
        self._topbar = TopBar()
        self._notes = Static(id="notes")
        self._engine = EnginePanel()
        gateway, embedding = GatewayPanel("Gateway", id="gateway"), EmbeddingPanel("Embedding", id="embedding")
        self._panels: tuple[Panel, ...] = (SystemPanel("System", id="system"), self._engine, gateway, embedding)
        self._daemons = DaemonTable(id="daemons")
        self._jobs = JobTable(id="jobs")
        self._job_detail = JobDetail(id="job")
        self._operators = OperatorTable(id="operators")
        self._logs = LogsPanel()

    def compose(self) -> ComposeResult:
        """All panels; style decides which are seen."""
        yield self._topbar
        yield self._notes
        with Container(id="body"):
            yield from self._panels
            yield Static(empty_state(), id="empty", classes="panel")
            yield self._daemons
            yield self._jobs
            yield self._job_detail
            yield self._operators
            yield self._logs
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self._show_view(VIEWS[0])
        self.run_worker(self.feed.run(), name="feed")
        self.set_interval(1.0, self._tick)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._restyle())

    def on_unmount(self) -> None:
        """Let go of threads and connections."""
        self.feed.close()

    # What is seen

    def look(self, snapshot: Snapshot, tail: Tail) -> None:
        """Show what the feed found."""
        self.snapshot = snapshot
        daemons = self._daemons.row_count
        for panel in self._panels:
            panel.show(snapshot)
        self._daemons.show(snapshot)
        self._jobs.show(snapshot)
        self._show_job()
        self._show_notes(snapshot)
        self._offer_logs(snapshot)
        self._logs.feed(tail)
        self.set_class(snapshot.empty, "-empty")
        if (daemons > 0) != (self._daemons.row_count > 0):
            self.refresh_bindings()
        self._tick()

    def _tick(self) -> None:
        """The clock goes on also when no data come: their age must be seen to grow."""
        self._topbar.show(
            self.snapshot, view=self.view, interval=self.feed.interval, paused=self.feed.paused, wall=self._wall()
        )

    def _show_notes(self, snapshot: Snapshot) -> None:
        troubles = [*snapshot.troubles, *snapshot.notes]
        self._notes.display = bool(troubles)
        if troubles:
            more = f"  (+{len(troubles) - 1})" if len(troubles) > 1 else ""
            self._notes.update(Content(f"▲ {troubles[0]}{more}"), layout=False)

    def _show_job(self) -> None:
        job = self._job()
        self._job_detail.show(job)
        self._operators.show(job)

    def _job(self) -> JobView | None:
        selected = self._jobs.selected
        jobs = self.snapshot.jobs if self.snapshot is not None else ()
        return next((job for job in jobs if job.id == selected), None)

    def _restyle(self) -> None:
        for table in self.query(LiveTable):
            table.restyle()
        self._logs.restyle()

    # Views

    def _show_view(self, name: str) -> None:
        self.view = name
        for other in VIEWS:
            self.set_class(other == name, f"-view-{other}")
        self._tick()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing here are not offered."""
        if action in {"restart", "daemon_log"}:
            return self.view == "overview" and self._daemons.row_count > 0
        return True

    def action_view(self, name: str) -> None:
        """Go to a view and give the keys to what one works with there."""
        self._show_view(name)
        target = {"overview": "#daemons", "pipelines": "#jobs", "logs": "#log-lines"}[name]
        self.query_one(target).focus()

    @on(DataTable.RowSelected, "#daemons")
    def _open_daemon(self, event: DataTable.RowSelected) -> None:
        daemons = self.snapshot.stack.daemons if self.snapshot is not None else ()
        daemon = next((daemon for daemon in daemons if daemon.name == event.row_key.value), None)
        if daemon is not None:
            self.app.push_screen(DetailScreen(daemon), self.open_log)

    def open_log(self, name: str | None) -> None:
        """Go to a log; None stays where we are."""
        if name:
            self.action_log(name)
            self.action_view("logs")

    @property
    def lines_shown(self) -> int:
        """How many lines of the log are held for the reader."""
        return self._logs.line_count

    @property
    def log_names(self) -> list[str]:
        """The logs on offer."""
        return list(self._log_files())

    @on(DataTable.RowSelected, "#jobs")
    def _open_job(self) -> None:
        self.action_view("pipelines")

    @on(DataTable.RowHighlighted, "#jobs")
    def _select_job(self, event: DataTable.RowHighlighted) -> None:
        self.feed.select_job(event.row_key.value)
        self._show_job()

    # Logs

    def _log_files(self) -> dict[str, Path]:
        """The logs on offer: those of the known daemons first, then the others in the folder."""
        daemons = self.snapshot.stack.daemons if self.snapshot is not None else ()
        known = {daemon.name: Path(daemon.log) for daemon in daemons if daemon.log}
        others = {name: path for name, path in log_files(self.home.logs).items() if path not in known.values()}
        return known | {name: path for name, path in others.items() if name not in known}

    def _offer_logs(self, snapshot: Snapshot) -> None:
        logs, panel = self._log_files(), self._logs
        if panel.name_shown in logs:
            panel.choose(logs, panel.name_shown)
        elif logs:
            engines = [daemon.name for daemon in snapshot.stack.daemons if daemon.kind == "llm"]
            self.action_log(next((name for name in engines if name in logs), next(iter(logs))))

    def action_log(self, name: str) -> None:
        """Show another log."""
        logs = self._log_files()
        if name in logs:
            self._logs.choose(logs, name)
            self.feed.follow(logs[name])

    def action_daemon_log(self) -> None:
        """The log of the daemon under the cursor."""
        selected = self._daemons.selected
        if selected:
            self.open_log(selected)
        else:
            self.action_view("logs")

    def action_next_log(self, step: int) -> None:
        """The next or previous log."""
        names, panel = list(self._log_files()), self._logs
        if names:
            at = names.index(panel.name_shown) if panel.name_shown in names else 0
            self.action_log(names[(at + step) % len(names)])

    def action_search(self) -> None:
        """Filter the log."""
        self._show_view("logs")
        self._logs.action_search()

    def action_follow(self) -> None:
        """Keep the newest log line in sight, or not."""
        self._logs.toggle_follow()

    def action_wrap(self) -> None:
        """Wrap long log lines, or not."""
        self._logs.toggle_wrap()

    # Actions on daemons

    @work
    async def action_restart(self) -> None:
        """Restart the daemon under the cursor, after asking."""
        name = self._daemons.selected
        if name is None:
            return
        question = f"Requests that {name} works on will fail. It comes back on the same port."
        if await self.app.push_screen_wait(ConfirmScreen(f"Restart {name}?", question, "Restart")):
            self.notify(f"Restarting {name} …")
            outcome = await sage(self.home, "llm", "restart", name)
            said = escape(outcome.said or f"{name} restarted")
            self.notify(said, severity="information" if outcome.ok else "error", timeout=4 if outcome.ok else 10)
            self.feed.refresh()

    # The rest

    def action_pause(self) -> None:
        """Stop refreshing, or go on."""
        self.feed.pause()
        self._tick()

    def action_refresh_now(self) -> None:
        """Look now, also while paused."""
        self.feed.refresh()

    def action_faster(self, steps: int) -> None:
        """Refresh more or less often."""
        self.feed.faster(steps)
        self._tick()

    def set_refresh(self, seconds: float) -> None:
        """Refresh every ``seconds``."""
        self.feed.interval = seconds
        self.feed.refresh()

    def action_next_engine(self) -> None:
        """Show the next engine's numbers."""
        self._engine.next_engine()

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen([*LiveTable.BINDINGS, *self.BINDINGS]))

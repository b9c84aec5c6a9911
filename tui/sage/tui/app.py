"""The dashboard as an application: themes, command palette, one screen. Start it with :func:`run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from textual.app import App, SystemCommand
from textual.screen import Screen

from sage.common.home import SageHome
from sage.tui.data import Collector
from sage.tui.feed import INTERVALS
from sage.tui.screens import MonitorScreen
from sage.tui.themes import SAGE_DARK, SAGE_LIGHT
from sage.tui.widgets.topbar import VIEWS

__all__ = ["MonitorApp", "run"]


class MonitorApp(App[None]):
    """``sage monitor``."""

    CSS_PATH = "monitor.tcss"
    TITLE = "SAGE"
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        home: SageHome,
        *,
        interval: float = 1.0,
        collector: Collector | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.monitor = MonitorScreen(home, collector or Collector(home), interval, wall)

    def on_mount(self) -> None:
        """SAGE's colours first; every theme of Textual is in the palette."""
        self.register_theme(SAGE_DARK)
        self.register_theme(SAGE_LIGHT)
        self.theme = SAGE_DARK.name
        self.push_screen(self.monitor)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's own commands (themes, keys, screenshot, quit) and ours."""
        yield from super().get_system_commands(screen)
        monitor = self.monitor
        yield SystemCommand("Help", "The keys, and how to read the screen", monitor.action_help)
        yield SystemCommand("Pause or go on", "Stop refreshing, or start again", monitor.action_pause)
        for view in VIEWS:
            yield SystemCommand(f"View: {view}", f"Show the {view}", partial(monitor.action_view, view))
        for seconds in INTERVALS:
            yield SystemCommand(
                f"Refresh every {seconds:g} s", "How often to look", partial(monitor.set_refresh, seconds)
            )
        for name in monitor.log_names:
            yield SystemCommand(f"Log: {name}", f"Show the log of {name}", partial(monitor.open_log, name))


def run(home: SageHome | None = None, *, interval: float = 1.0) -> int:
    """Show the dashboard of ``home`` (default: the nearest ``.sage``) until the user leaves; returns the exit code."""
    app = MonitorApp(home or SageHome.find(), interval=interval)
    app.run()
    return app.return_code or 0

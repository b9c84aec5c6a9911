"""One daemon in full."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from sage.tui.data import DaemonView
from sage.tui.format import duration, percent, size
from sage.tui.widgets.draw import dim, line, mark, stack

__all__ = ["DetailScreen"]


class DetailScreen(ModalScreen[str | None]):
    """Facts about a daemon at the moment it was opened; gives back its name when its log is asked for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss(None)", "Close", key_display="esc", id="detail.close"),
        Binding("l", "log", "Log", id="detail.log"),
    ]

    def __init__(self, daemon: DaemonView) -> None:
        super().__init__()
        self._daemon = daemon

    def compose(self) -> ComposeResult:
        """A box in the middle."""
        with VerticalScroll(classes="dialog") as box:
            box.border_title = Content(self._daemon.name).markup
            box.border_subtitle = "l: log · esc: close"
            yield Static(_facts(self._daemon))

    def on_click(self) -> None:
        """A click anywhere closes."""
        self.dismiss(None)

    def action_log(self) -> None:
        """Go to the daemon's log."""
        self.dismiss(self._daemon.name)


def _facts(daemon: DaemonView) -> Content:
    rows: list[tuple[str, str | Content]] = [
        ("State", mark(daemon.state)),
        ("Health", daemon.health),
        ("Kind", daemon.kind),
        ("Model", daemon.model),
        ("Address", daemon.url),
        ("Process", "" if daemon.pid is None else str(daemon.pid)),
        ("Up", duration(daemon.uptime_s)),
        ("Restarts", str(daemon.restarts)),
        ("CPU", percent(daemon.cpu)),
        ("Memory", size(daemon.rss)),
        ("Exit code", "" if daemon.exit_code is None else str(daemon.exit_code)),
        ("Last error", daemon.last_error),
        ("Log", daemon.log),
    ]
    return stack(line(dim(name.ljust(12)), value) for name, value in rows if value)

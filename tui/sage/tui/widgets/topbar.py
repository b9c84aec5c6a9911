"""The first line of the screen: where we are, what is up, how old the picture is."""

from __future__ import annotations

from pathlib import Path

from textual.content import Content
from textual.widgets import Static

from sage.tui.data.model import Snapshot
from sage.tui.format import duration
from sage.tui.widgets.draw import Piece, line

__all__ = ["VIEWS", "TopBar"]

VIEWS = ("overview", "pipelines", "logs")
BEHIND_S = 3.0


class TopBar(Static):
    """Views to click on, health at a glance, refresh interval, clock."""

    def __init__(self) -> None:
        super().__init__(id="topbar")
        self.auto_links = False
        self._shown: Content | None = None

    def show(self, snapshot: Snapshot | None, *, view: str, interval: float, paused: bool, wall: float) -> None:
        """Draw the line for this moment; ``wall`` is the time of day."""
        width = self.size.width
        left: list[Piece] = [(" SAGE ", "bold $text on $primary"), " "]
        for number, name in enumerate(VIEWS, 1):
            style = "bold $text-primary" if name == view else "$foreground-muted"
            left += [(f"{number} {name.title()}", f"{style} @click=screen.view('{name}')"), "  "]
        right = _right(snapshot, interval, paused, wall)
        start, end = line(*left), line(*right)
        room = width - start.cell_length - end.cell_length
        middle = _clip_left(_place(snapshot), room - 2) if snapshot is not None and room > 12 else ""
        content = line(start, (middle, "$foreground-muted"), " " * max(1, room - len(middle)), end)
        if self._shown is None or not content.is_same(self._shown):
            self._shown = content
            self.update(content, layout=False)


def _right(snapshot: Snapshot | None, interval: float, paused: bool, wall: float) -> list[Piece]:
    if snapshot is None:
        return [("reading … ", "$foreground-muted")]
    parts: list[Piece] = _health(snapshot)
    behind = wall - snapshot.taken_at
    if paused:
        parts += ["  ", (f" paused {duration(behind)} ", "bold reverse $text-warning @click=screen.pause()")]
    elif behind > max(BEHIND_S, 2.5 * interval):
        parts += ["  ", (f" data {duration(behind)} old ", "bold reverse $text-error")]
    else:
        parts += ["  ", (f"every {interval:g} s", "$foreground-muted")]
    return [*parts, " "]


def _health(snapshot: Snapshot) -> list[Piece]:
    daemons = snapshot.stack.daemons
    ready = sum(daemon.state == "ready" for daemon in daemons)
    if not daemons:
        return [("○ nothing runs", "$foreground-muted")]
    style = "$text-success" if ready == len(daemons) else "$text-warning" if ready else "$text-error"
    symbol = "●" if ready == len(daemons) else "▲" if ready else "✖"
    return [(f"{symbol} {ready}/{len(daemons)} ready", style)]


def _place(snapshot: Snapshot) -> str:
    home, user = snapshot.home, str(Path.home())
    return "~" + home.removeprefix(user) if home.startswith(user + "/") else home


def _clip_left(text: str, width: int) -> str:
    """The end of a path tells more than its beginning."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]

"""The tail of a daemon's log, with search."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, RichLog, Static

from sage.tui.data.tail import Tail, level_of
from sage.tui.widgets.draw import Piece, dim, line
from sage.tui.widgets.table import colour

__all__ = ["LogsPanel"]

KEPT = 2000
WIDE = 110
_DATE = re.compile(r"^\d{4}-\d\d-\d\d[T ](?=\d\d:)")  # costs a narrow screen room and says little
_LEVEL_COLOURS = {"error": "error", "warning": "warning", "debug": "muted", "info": ""}


class LogsPanel(Vertical):
    """The newest lines of one log. A filter is a plain text, or ``/a regular expression/``; case does not matter."""

    DEFAULT_CLASSES = "panel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear_filter", "Clear filter", show=False, id="logs.clear_filter")
    ]

    def __init__(self) -> None:
        super().__init__(id="logs")
        self.border_title = "Logs"
        self.names: tuple[str, ...] = ()
        self.name_shown = ""
        self.follow = True
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._pattern: re.Pattern[str] | None = None
        self._problem = ""
        self._width = 0
        self._names = Static(id="log-names")
        self._names.auto_links = False
        self._input = Input(
            placeholder="text or /regex/ · Enter keeps it, Esc clears it", id="log-filter", compact=True
        )
        self._view = RichLog(id="log-lines", max_lines=KEPT, wrap=False, auto_scroll=True, min_width=20)

    def compose(self) -> ComposeResult:
        """The choice of logs, the filter, the lines."""
        yield self._names
        with Horizontal(id="log-search"):
            yield Static("filter ")
            yield self._input
        yield self._view

    @property
    def line_count(self) -> int:
        """How many lines are held, whether the filter shows them or not."""
        return len(self._lines)

    def choose(self, names: Iterable[str], shown: str) -> None:
        """Offer ``names``, of which ``shown`` is the one whose lines come next."""
        self.names = tuple(names)
        if shown != self.name_shown:
            self.name_shown = shown
            self._lines.clear()
            self._view.clear()
        self._head()

    def feed(self, tail: Tail) -> None:
        """Add what a poll of the shown log found."""
        if tail.fresh:
            self._lines.clear()
            self._view.clear()
        self._lines.extend(tail.lines)
        if self._problem != tail.problem or tail.lines:
            self._problem = tail.problem
            self._head()
        self._write(tail.lines)

    def _write(self, lines: Iterable[str]) -> None:
        view = self._view
        for text in lines:
            if self._pattern is None or self._pattern.search(text):
                view.write(self._styled(text), scroll_end=self.follow)

    def _styled(self, text: str) -> Text:
        shown = text if self.size.width >= WIDE else _DATE.sub("", text, count=1)
        styled = Text(shown, style=colour(self.app, _LEVEL_COLOURS[level_of(text)]))
        if self._pattern is not None:
            styled.highlight_regex(self._pattern, "reverse")
        return styled

    def restyle(self) -> None:
        """Write everything again: another theme, another filter."""
        self._view.clear()
        self._write(self._lines)

    def _head(self) -> None:
        parts: list[Piece] = []
        for name in self.names:
            style = "reverse bold" if name == self.name_shown else "$foreground-muted"
            parts += [(f" {name} ", f"{style} @click=screen.log('{name}')"), " "]
        if not self.names:
            parts.append(dim("no logs yet"))
        elif self._problem:
            parts.append(dim(f"· {self._problem}"))
        self._names.update(line(*parts), layout=False)
        shown = len(self._lines) if self._pattern is None else sum(1 for t in self._lines if self._pattern.search(t))
        matching = (
            f"{shown} of {len(self._lines)} lines match" if self._pattern else f"{shown} line{'s' * (shown != 1)}"
        )
        self.border_subtitle = matching if self.follow else f"{matching} · not following [f]"

    def action_search(self) -> None:
        """Open the filter."""
        self.add_class("-filtering")
        self._input.focus()

    def action_clear_filter(self) -> None:
        """Close the filter and show every line again."""
        self.remove_class("-filtering")
        self._input.value = ""
        self._view.focus()

    def toggle_wrap(self) -> None:
        """Wrap long lines, or cut them at the edge (the arrows then move sideways)."""
        self._view.wrap = not self._view.wrap
        self.restyle()

    def on_resize(self) -> None:
        """Lines are written for a width."""
        if self.size.width != self._width:
            self._width = self.size.width
            self.restyle()

    def toggle_follow(self) -> None:
        """Keep the newest line in sight, or stay where the reader is."""
        self.follow = not self.follow
        self._view.auto_scroll = self.follow
        if self.follow:
            self._view.scroll_end(animate=False)
        self._head()

    @on(Input.Changed, "#log-filter")
    def _filter(self, event: Input.Changed) -> None:
        self._pattern = _pattern(event.value)
        self.restyle()
        self._head()

    @on(Input.Submitted, "#log-filter")
    def _keep(self, event: Input.Submitted) -> None:
        if not event.value:
            self.remove_class("-filtering")
        self._view.focus()


def _pattern(text: str) -> re.Pattern[str] | None:
    """``/regex/`` as such (plain text while it is not yet valid), everything else literally; None for no filter."""
    if not text:
        return None
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        try:
            return re.compile(text[1:-1], re.IGNORECASE)
        except re.error:
            return re.compile(re.escape(text), re.IGNORECASE)
    return re.compile(re.escape(text), re.IGNORECASE)

"""The keys, read from the bindings themselves, so that the page cannot lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from sage.tui.widgets.draw import dim, line, stack

__all__ = ["HelpScreen"]

_NOTES = (
    "Tab moves between tables; arrows, PgUp, PgDn and the mouse within.",
    "Latencies cover the last minute; dim ones, all since the start.",
    "A silent daemon's numbers stay, marked stale with their age.",
    "ctrl+p: the palette, with themes, refresh intervals, logs by name.",
)


class HelpScreen(ModalScreen[None]):
    """Keys and how to read the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "dismiss(None)", "Close", key_display="esc", id="help.close"),
    ]

    def __init__(self, bindings: Iterable[BindingType]) -> None:
        super().__init__()
        self._shown = [binding for binding in bindings if isinstance(binding, Binding)]

    def compose(self) -> ComposeResult:
        """A box in the middle."""
        with VerticalScroll(classes="dialog") as box:
            box.border_title = "Keys"
            box.border_subtitle = "esc: close"
            yield Static(self._page())

    def on_click(self) -> None:
        """A click anywhere closes."""
        self.dismiss(None)

    def _page(self) -> Content:
        cells = [
            line((f"{self._key(binding):>7}", "bold $text-accent"), f"  {binding.description:<20}")
            for binding in self._shown
        ]
        half = (len(cells) + 1) // 2
        pairs = [line(left, *cells[half + index : half + index + 1]) for index, left in enumerate(cells[:half])]
        return stack([*pairs, line(""), *(line(dim(note)) for note in _NOTES)])

    def _key(self, binding: Binding) -> str:
        return binding.key_display or self.app.get_key_display(binding)

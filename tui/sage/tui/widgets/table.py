"""A table that follows changing rows without losing the cursor, writing only the cells that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from sage.tui.widgets.draw import MARKS

__all__ = ["Cell", "Column", "LiveTable"]


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` cells; 0 takes what the others leave. Hidden when the table is narrower than ``above``."""

    title: str
    width: int
    right: bool = False
    above: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's text and its colour's name (``primary``, ``success``, ``warning``, ``error``, ``muted`` or none)."""

    text: str
    colour: str = ""

    @classmethod
    def state(cls, state: str) -> Cell:
        """A state with its symbol."""
        symbol, colour = MARKS.get(state, ("?", "muted"))
        return cls(f"{symbol} {state}", colour)


class LiveTable(DataTable[Text]):
    """Rows with keys; the cursor stays on its row while others come and go."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Open", id="open")]
    COLUMNS: tuple[Column, ...] = ()

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, cell_padding=1)
        self._rows: list[tuple[str, Sequence[Cell]]] = []
        self._drawn: dict[str, tuple[Cell, ...]] = {}
        self._layout: tuple[tuple[int, int], ...] = ()

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        if not self.row_count:
            return None
        return str(self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value)

    def select(self, key: str) -> None:
        """Move the cursor to a row, if it is there."""
        if key in self._drawn:
            self.move_cursor(row=self.get_row_index(key))

    def put(self, rows: list[tuple[str, Sequence[Cell]]]) -> None:
        """Show exactly these rows, in this order."""
        self._rows = rows
        self._sync()

    def on_resize(self) -> None:
        """The free column takes the new width."""
        self._sync()

    def restyle(self) -> None:
        """Draw every cell again, in the colours of the theme that is now set."""
        self._layout = ()
        self._sync()

    def _sync(self) -> None:
        if self.size.width <= 0:
            return
        layout = self._fit(self.scrollable_content_region.width)
        keys = [key for key, _ in self._rows]
        if layout != self._layout or keys != list(self._drawn):
            self._rebuild(layout)
            return
        for key, cells in self._rows:
            for (index, _), old, new in zip(layout, self._drawn[key], self._pick(cells), strict=True):
                if old != new:
                    self.update_cell(key, str(index), self._text(index, new))
            self._drawn[key] = self._pick(cells)

    def _rebuild(self, layout: tuple[tuple[int, int], ...]) -> None:
        cursor, row, scroll = self.selected, self.cursor_row, self.scroll_y
        self.clear(columns=layout != self._layout)
        if layout != self._layout:
            for index, width in layout:
                column = self.COLUMNS[index]
                title = Text(column.title, justify="right" if column.right else "left")
                self.add_column(title, width=width, key=str(index))
        self._layout = layout
        self._drawn = {key: self._pick(cells) for key, cells in self._rows}
        for key, cells in self._drawn.items():
            texts = [self._text(index, cell) for (index, _), cell in zip(layout, cells, strict=True)]
            self.add_row(*texts, key=key)
        if cursor in self._drawn:
            self.select(str(cursor))
        elif self._drawn:
            self.move_cursor(row=min(row, len(self._drawn) - 1))
        self.scroll_to(y=scroll, animate=False)

    def _fit(self, width: int) -> tuple[tuple[int, int], ...]:
        shown = [(index, column) for index, column in enumerate(self.COLUMNS) if width >= column.above]
        free = width - sum(column.width + 2 for _, column in shown)
        return tuple((index, column.width or max(6, free)) for index, column in shown)

    def _pick(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        return tuple(cells[index] for index, _ in self._layout)

    def _text(self, index: int, cell: Cell) -> Text:
        style = colour(self.app, cell.colour)
        right = self.COLUMNS[index].right
        return Text(cell.text, style=style, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")


def colour(app: App[object], name: str) -> str:
    """A colour's name as the value that Rich understands, in the theme that is set."""
    if not name:
        return ""
    if name == "muted":
        return "dim"
    value = app.theme_variables.get(f"text-{name}", "")
    return value if value.startswith("#") else ""

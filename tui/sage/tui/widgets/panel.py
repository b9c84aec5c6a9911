"""A bordered box of text that is redrawn only when what it shows has changed."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from sage.tui.data.model import Snapshot
from sage.tui.widgets.draw import stack

__all__ = ["Panel"]


class Panel(Static):
    """Draws one aspect of the newest snapshot at the width it has. Subclasses say which."""

    DEFAULT_CLASSES = "panel gauges"

    def __init__(self, title: str, *, id: str) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self.border_title = title
        self._snapshot: Snapshot | None = None
        self._shown: Content | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot."""
        self._snapshot = snapshot
        self._redraw()

    def on_resize(self, event: Resize) -> None:
        """Lines are cut to the width, so a new width means new lines."""
        self._redraw()

    def _redraw(self) -> None:
        size = self.content_size
        if self._snapshot is None or size.width <= 0:
            return
        content = stack(self.lines(self._snapshot, size.width, size.height))
        if self._shown is None or not content.is_same(self._shown):
            self._shown = content
            self.update(content, layout=False)

    def lines(self, snapshot: Snapshot, width: int, height: int) -> Iterable[Content]:
        """What the panel shows in ``width`` by ``height`` cells; may set the border's title and subtitle too."""
        raise NotImplementedError

    def corner(self, text: str, *, bad: bool = False) -> None:
        """Write into the lower right corner of the border."""
        self.border_subtitle = text
        self.set_class(bad, "-stale")

"""The dashboard: ``sage monitor`` on a terminal, and its headless twin for scripts and pipes.

It reads ``.sage/`` and the daemons' HTTP, and imports nothing of ours but ``sage.common``. Textual is loaded only by
``sage.tui.app``; the twin does without.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.tui.app import run
    from sage.tui.text import snapshot, snapshot_json

__all__ = ["run", "snapshot", "snapshot_json"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "run":
        return import_module("sage.tui.app").run
    if name in ("snapshot", "snapshot_json"):
        return getattr(import_module("sage.tui.text"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

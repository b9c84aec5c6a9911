"""``sage monitor``: the dashboard on a terminal; without one, the same facts as text."""

from __future__ import annotations

import sys

from sage.cli.output import result
from sage.common.home import SageHome


def dashboard() -> None:
    """Open the dashboard; where there is no terminal, print what it would show."""
    home = SageHome.find()
    if sys.stdin.isatty() and sys.stdout.isatty():
        from sage.tui.app import run

        run(home)
        return
    from sage.tui import snapshot

    result(snapshot(home))

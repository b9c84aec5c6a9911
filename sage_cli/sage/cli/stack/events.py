"""What the supervisor reports while the stack comes up, as lines on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from sage.cli.output import duration, say, style
from sage.common.stack import DaemonStatus

_WORDS = {"starting": "starting", "ready": "ready", "backing-off": "failed, will be tried again", "failed": "failed"}


class EventLines:
    """One line a change: ``engine     ready in 2.1 s  http://127.0.0.1:…``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, float] = {}
        self._last: dict[str, str] = {}

    def show(self, daemon: DaemonStatus) -> None:
        """Say that a daemon has come to a new state; the same state twice is said once."""
        if daemon.state == self._last.get(daemon.name, "stopped"):
            return
        self._last[daemon.name] = daemon.state
        self._began.setdefault(daemon.name, self._clock())
        say(f"{daemon.name:<10} {self._words(daemon)}")

    def _words(self, daemon: DaemonStatus) -> str:
        words = _WORDS.get(daemon.state, daemon.state)
        if daemon.state == "ready":
            took = duration(self._clock() - self._began[daemon.name])
            return f"{style(words, 'green', stream=sys.stderr)} in {took}"
        if daemon.state == "starting":
            model = f" with {daemon.model}" if daemon.model else ""
            return f"{words} on port {daemon.port}{model}"
        color = "yellow" if daemon.state == "backing-off" else "red"
        why = daemon.last_error.partition("\n")[0]
        return style(words, color, stream=sys.stderr) + (f": {why}" if why else "")

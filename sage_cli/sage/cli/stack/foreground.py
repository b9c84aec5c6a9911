"""``sage llm serve --foreground``: prints the logs until Ctrl-C (or SIGTERM), then stops the stack."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from sage.cli.logview import LogView, print_lines
from sage.cli.output import say, style
from sage.common.home import SageHome
from sage.common.stack import read_status
from sage.supervisor import SupervisorClient

_LOOK_EVERY_SECONDS = 1.0
_FIRST_LINES = 10
_WIDTH = len("supervisor")


def stay(home: SageHome) -> None:
    """Follow the logs; returns when the stack was stopped by somebody else. Ctrl-C stops it and goes on as 130."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
    say(style("In the foreground; Ctrl-C stops the services.", "dim"))
    try:
        view = LogView(home)
        print_lines(view.last(_FIRST_LINES), width=_WIDTH)
        print_lines(view.added(_Gone(home)), width=_WIDTH)
    except KeyboardInterrupt:
        say("Stopping …")
        SupervisorClient(home).stop()
        say("Stopped.")
        raise
    say("The services were stopped.")


class _Gone:
    """Whether nothing runs any more; looks at most once a second."""

    def __init__(self, home: SageHome) -> None:
        self._home = home
        self._next = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LOOK_EVERY_SECONDS
        status = read_status(self._home)
        return not status.running and not status.supervisor_alive

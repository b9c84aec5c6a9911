"""A child process of the engine: started with a control socket, a pipe that tells it when its parent is gone, a log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sagellm_core.wire import Connection

_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10
_END_WITHIN_S = 5.0


class ChildProcess:
    """`python -m MODULE CONTROL LIFE`, in its own session, so that Ctrl-C reaches the engine alone."""

    def __init__(
        self,
        module: str,
        name: str,
        log: Path,
        answers: Any,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        ours, theirs = socket.socketpair()
        self.control = Connection(ours, answers)
        life, self._life = os.pipe()
        self._expected = False
        with theirs, log.open("ab") as out:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(life)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=(theirs.fileno(), life),
                    env=_environment(env or {}),
                    start_new_session=True,
                )
            finally:
                os.close(life)

    @property
    def pid(self) -> int:
        return self.process.pid

    def on_end(self, tell: Callable[[ChildProcess], None]) -> None:
        """Have `tell` called on a thread when the process ends without having been stopped."""

        def wait() -> None:
            self.process.wait()
            if not self._expected:
                tell(self)

        threading.Thread(target=wait, name=f"sage-watch-{self.name}", daemon=True).start()

    def expect_end(self) -> None:
        """From now on the end of the process is no news."""
        self._expected = True

    def stop(self, message: Any, within: float) -> None:
        """Ask with `message`, wait `within` seconds, then kill. Safe to call twice."""
        self.expect_end()
        try:
            self.control.send(message)
            self.process.wait(within)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        """End the process now and reap it. Safe to call twice."""
        self.expect_end()
        self.process.kill()
        self.process.wait()
        self.control.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def tail(self) -> str:
        """The last lines of its log; empty when it said nothing."""
        try:
            data = self.log.read_bytes()[-_TAIL_BYTES:]
        except OSError:
            return ""
        return "\n".join(data.decode(errors="replace").splitlines()[-_TAIL_LINES:]).strip()

    def obituary_after_end(self) -> str:
        """How it ended, for a connection that broke a moment ago: the process is given that moment to be gone."""
        try:
            self.process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass
        return self.obituary()

    def obituary(self) -> str:
        """How it ended, with the end of its log."""
        code = self.process.poll()
        if code is None:
            how = "does not answer"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        tail = self.tail()
        text = f"{self.name} (pid {self.pid}) {how}"
        return f"{text}; its log ends:\n{tail}" if tail else f"{text}; its log is empty"


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, with our module search path: what can be imported here can be imported there."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}

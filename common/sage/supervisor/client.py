"""The client of the supervisor: what commands use. Blocking, plain sockets, cheap to import."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sage.common.errors import DaemonError, SageError, StateError
from sage.common.home import SageHome
from sage.common.stack import DaemonStatus, StackStatus, read_status
from sage.supervisor import wire
from sage.supervisor.spec import DaemonSpec

__all__ = ["SupervisorClient"]

_CONNECT_S = 5.0
_START_S = 20.0
_ENDING_S = 10.0


class SupervisorClient:
    """Talks to the supervisor of one `.sage/`, starting it where that is needed."""

    def __init__(self, home: SageHome | None = None) -> None:
        self.home = home or SageHome.find()

    def ensure_running(self) -> int:
        """Start the supervisor unless it runs; returns its pid. It outlives this process and its terminal.

        A new one adopts the daemons that run already. Raises StateError, or DaemonError with the supervisor's words.
        """
        pid = self._ping()
        if pid is not None:
            return pid
        self.home.ensure()
        _launch(self.home)
        deadline = time.monotonic() + _START_S
        while (pid := self._ping()) is None:
            if time.monotonic() > deadline:
                raise _mute(self.home)
            time.sleep(0.02)
        return pid

    def start(
        self,
        specs: Sequence[DaemonSpec],
        wait: bool = True,
        on_event: Callable[[DaemonStatus], None] | None = None,
        *,
        replace: bool = False,
        notes: Sequence[str] = (),
    ) -> list[DaemonStatus]:
        """Start these daemons, and the supervisor first; what runs already with the same spec is left alone.

        With `wait` it returns when all are ready or one has failed (see `state` and `last_error`: a daemon that fails
        raises nothing here, and stops no other); `on_event` gets every change on the way. One that runs with another
        spec raises DaemonError, or is replaced with `replace`. `notes` go to daemon.json for `sage llm status`. The
        daemons get the environment of this process, at every restart too.
        """
        request = {
            "op": "start",
            "specs": [spec.to_dict() for spec in specs],
            "wait": wait,
            "replace": replace,
            "notes": list(notes),
            "environ": dict(os.environ),
        }
        return _daemons(self._insist(request, on_event))

    def stop(self, names: Iterable[str] | None = None) -> list[DaemonStatus]:
        """Stop these daemons (None: all, and then the supervisor ends too); returns what was stopped.

        Works without a supervisor as well. Raises DaemonError for an unknown name.
        """
        wanted = None if names is None else list(names)
        if self._ping() is not None:
            try:
                stopped = _daemons(self._ask({"op": "stop", "names": wanted}))
            except OSError:  # it was just ending
                pass
            else:
                if wanted is None:
                    self._wait_gone()
                return stopped
        from sage.supervisor.rescue import stop_without_supervisor

        return stop_without_supervisor(self.home, wanted)

    def restart(
        self,
        names: Iterable[str] | None = None,
        wait: bool = True,
        on_event: Callable[[DaemonStatus], None] | None = None,
    ) -> list[DaemonStatus]:
        """Stop these daemons (None: all) and start them again with the same specs; as `start` otherwise."""
        request = {"op": "restart", "names": None if names is None else list(names), "wait": wait}
        return _daemons(self._insist(request, on_event))

    def status(self) -> StackStatus:
        """What runs now; the same truth as `read_status`."""
        return read_status(self.home)

    def shutdown(self) -> None:
        """Stop every daemon and end the supervisor; returns when it is gone. Nothing happens when none runs."""
        if self._ping() is None:
            return
        try:
            self._ask({"op": "shutdown"})
        except OSError:  # it was just ending
            pass
        self._wait_gone()

    def _insist(self, request: dict[str, Any], on_event: Callable[[DaemonStatus], None] | None) -> dict[str, Any]:
        """Ask, and ask the next supervisor where this one is just ending."""
        deadline = time.monotonic() + _ENDING_S
        while True:
            self.ensure_running()
            try:
                return self._ask(request, on_event)
            except (DaemonError, OSError) as error:
                ending = isinstance(error, OSError) or error.code == wire.ENDING
                if not ending or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _wait_gone(self) -> None:
        deadline = time.monotonic() + _ENDING_S
        while read_status(self.home).supervisor_alive:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def _ping(self) -> int | None:
        """The supervisor's pid; None when none runs. Raises DaemonError when one runs and does not answer."""
        try:
            return int(self._ask({"op": "ping"}, patience_s=_CONNECT_S)["pid"])
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StateError(
                f"Cannot reach the supervisor of {self.home.root}",
                cause=error.strerror or str(error),
                hint="Give yourself access to it, or choose another place:  export SAGE_HOME=/path/to/state",
            ) from error
        except TimeoutError as error:
            raise _mute(self.home) from error

    def _ask(
        self,
        request: dict[str, Any],
        on_event: Callable[[DaemonStatus], None] | None = None,
        patience_s: float | None = None,
    ) -> dict[str, Any]:
        """Send one request and read to its end. Raises OSError without a supervisor, or what it answered."""
        silent = True
        wire.check_socket_folder(self.home, make=False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONNECT_S)
            try:
                connection.connect(os.fspath(self.home.socket))
            except (TimeoutError, BlockingIOError) as error:  # it lives and accepts nobody
                raise _mute(self.home) from error
            connection.settimeout(patience_s)
            connection.sendall(json.dumps({"version": wire.VERSION, **request}).encode() + b"\n")
            for message in _messages(connection):
                silent = False
                if "event" in message:
                    if on_event is not None:
                        on_event(_status(message["daemon"]))
                elif message.get("ok"):
                    return message
                else:
                    raise _error(message.get("error") or {})
        if silent:
            raise ConnectionResetError("the supervisor ended between the connection and the answer")
        raise DaemonError(
            "The supervisor ended before it answered",
            cause=f"see {self.home.logs / 'supervisor.log'}",
            hint="Look at what runs:  sage llm status",
        )


def _messages(connection: socket.socket) -> Iterator[dict[str, Any]]:
    with connection.makefile("rb") as stream:
        for line in stream:
            yield json.loads(line)


def _daemons(answer: dict[str, Any]) -> list[DaemonStatus]:
    return [_status(record) for record in answer.get("daemons", ())]


def _status(record: dict[str, Any]) -> DaemonStatus:
    return DaemonStatus.from_record(str(record.get("name")), record)


def _error(record: dict[str, Any]) -> SageError:
    return DaemonError(
        str(record.get("title") or "The supervisor refused"),
        cause=str(record.get("cause") or ""),
        hint=str(record.get("hint") or ""),
        code=str(record.get("code") or DaemonError.code),
        details=record.get("details"),
    )


def _mute(home: SageHome) -> DaemonError:
    pid = read_status(home).supervisor_pid
    hint = f"End it and run the command again:  kill -9 {pid}" if pid else "Run the command again"
    return DaemonError(
        f"The supervisor of {home.root} does not answer", cause=f"see {home.logs / 'supervisor.log'}", hint=hint
    )


def _launch(home: SageHome) -> None:
    """Run `python -m sage.supervisor --detach`, which returns when the supervisor is up."""
    import subprocess
    import sys

    env = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_DAEMON")}
    env["SAGE_HOME"] = str(home.root)
    # -P keeps the current directory off the module path: a project's own json.py is none of ours
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sage.supervisor", "--home", str(home.root), "--detach"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        raise DaemonError(
            "The supervisor did not start",
            cause=done.stdout.decode(errors="replace").strip()[-2000:],
            hint=f"See {home.logs / 'supervisor.log'}, then run the command again",
        )

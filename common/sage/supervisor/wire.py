"""The control protocol: JSON lines over the Unix socket of a `.sage/`.

    → {"version": 1, "op": "start", "specs": […], "replace": false, "wait": true, "notes": [], "environ": {…}}
    ← {"event": "daemon", "daemon": {…DaemonStatus…}}          any number of times
    ← {"ok": true, "daemons": […]}   or   {"ok": false, "error": {code, title, cause, hint}}

ops: ping, status, start, stop, restart, shutdown. `ping`, `stop` and `shutdown` are understood in every version, so
that a newer SAGE can always end an older one's stack.
"""

from __future__ import annotations

import os
import stat

from sage.common.errors import StateError
from sage.common.home import SageHome

__all__ = ["ANY_VERSION", "ENDING", "LINE_LIMIT", "VERSION", "check_socket_folder"]

VERSION = 1
ENDING = "SAGE-R002"
"""The code of the error of a supervisor that is just ending: ask again, and a new one starts."""
ANY_VERSION = frozenset({"ping", "stop", "shutdown"})
LINE_LIMIT = 4 * 1024 * 1024


def check_socket_folder(home: SageHome, *, make: bool) -> None:
    """Raise StateError unless only this user can reach the socket (see `SageHome.socket`); its directory is made when
    asked. Beside `.sage/`, in /tmp, another user could have made it first."""
    folder = home.socket.parent
    if folder == home.root:
        return
    try:
        if make:
            folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"Cannot use {folder} for the control socket", cause=error.strerror or str(error)) from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise StateError(
            f"Cannot use {folder} for the control socket",
            cause="it is not a private directory of yours",
            hint="Remove it, or choose a place with a shorter path:  export SAGE_HOME=~/.sage",
        )

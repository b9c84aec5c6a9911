"""`.sage/lock`: one supervisor for each `.sage/`, by the kernel's word (flock)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time

from sage.common.errors import StateError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity

__all__ = ["take_lock"]


def take_lock(home: SageHome, wait_s: float = 0.0) -> int | None:
    """Take `.sage/lock` and write our identity into it; the descriptor that holds it, or None when another holds it.

    The lock goes with the process, however it ends. Raises StateError.
    """
    try:
        fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused(home, error) from error
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(0.05)
            continue
        except OSError as error:  # a file system without locks, or with none left
            os.close(fd)
            raise _refused(home, error) from error
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without a name in it
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(ProcessIdentity.current()._asdict()).encode(), 0)
        return fd


def _refused(home: SageHome, error: OSError) -> StateError:
    return StateError(
        f"Cannot lock {home.lock}",
        cause=error.strerror or str(error),
        hint="Free space or give yourself access, or choose another place:  export SAGE_HOME=/path/to/state",
    )

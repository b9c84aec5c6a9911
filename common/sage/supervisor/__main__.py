"""`python -m sage.supervisor --home DIR [--detach]`: the supervisor's process.

With --detach it forks into a session of its own, with its output in `.sage/logs/supervisor.log`, and returns when the
control socket answers (exit 0) or says on stderr why it cannot (exit 1). When another supervisor holds the lock, that
one is left alone (exit 0).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from sage.common.errors import SageError
from sage.common.home import SageHome

_OK = b"ok"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sage.supervisor", description="Supervise the daemons of one .sage/."
    )
    parser.add_argument("--home", required=True, help="the .sage/ directory")
    parser.add_argument("--detach", action="store_true", help="go to the background; return when it is up")
    arguments = parser.parse_args()
    try:
        home = SageHome(arguments.home).ensure()
        if arguments.detach:
            return _detached(home)
        return _run(home, None)
    except SageError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _detached(home: SageHome) -> int:
    """The double fork: this process waits for the word of its child, which lives on in a session of its own."""
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        with open(reader, "rb") as pipe:
            word = pipe.read()
        if word == _OK:
            return 0
        print(word.decode(errors="replace") or "the supervisor died while it started", file=sys.stderr)
        return 1
    os.close(reader)
    os.setsid()
    try:
        _redirect(home)
        code = _run(home, writer)
    except SageError as error:
        _tell(writer, str(error).encode())
        code = error.exit_code
    except BaseException as error:
        _tell(writer, repr(error).encode())
        raise
    return code


def _redirect(home: SageHome) -> None:
    from sage.supervisor.logfiles import LogFile
    from sage.supervisor.policy import Tuning

    null = os.open(os.devnull, os.O_RDWR)
    try:
        tuning = Tuning()
        log = LogFile(home.logs / "supervisor.log", tuning.log_max_bytes, tuning.log_backups).open()
    except OSError:
        log = os.dup(null)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)


def _run(home: SageHome, writer: int | None) -> int:
    from sage.common.logs import configure_logging
    from sage.supervisor.lock import take_lock
    from sage.supervisor.server import serve

    os.umask(0o077)
    os.chdir(home.root)
    configure_logging("supervisor")
    lock = take_lock(home, wait_s=3.0)  # one that is ending still holds it
    if lock is None:
        _tell(writer, _OK)
        return 0
    asyncio.run(serve(home, lambda: _tell(writer, _OK)))
    return 0


def _tell(writer: int | None, word: bytes) -> None:
    if writer is not None:
        try:
            os.write(writer, word)
            os.close(writer)
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(main())

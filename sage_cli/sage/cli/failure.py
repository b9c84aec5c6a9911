"""The one place that prints errors: what happened, why, what to type next; and the exit code that goes with it."""

from __future__ import annotations

import errno
import os
import sys

from typer.exceptions import Abort, TyperException

from sage.cli import exit_codes
from sage.cli.manifest import walk
from sage.cli.output import say, style
from sage.common.errors import DaemonError, SageError, StateError

_NO_SPACE = "Free some disk space, or move the state:  export SAGE_HOME=/path/with/space/.sage"
_NO_ACCESS = "Give yourself access to it, or run the command from a folder of yours."
_ADVICE = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: _NO_ACCESS,
}


def report(error: BaseException, *, debug: bool, command: str) -> int:
    """Print ``error`` on stderr and give its exit code; ``command`` is what the person typed.

    A traceback is printed with ``debug`` only.
    """
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if debug and not isinstance(error, KeyboardInterrupt):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | Abort):
        say("Interrupted.")
        return exit_codes.INTERRUPTED
    if isinstance(error, SageError):
        show(error.title, error.cause, error.hint or _advice(error), error.code)
        return error.exit_code
    if isinstance(error, TyperException):
        return _usage(error, command)
    return _unexpected(error, command)


def _advice(error: SageError) -> str:
    """The next step for an error that names none."""
    if isinstance(error, StateError):
        return "Examine disk and state directory:  sage check-env"
    return "Look at the services:  sage llm status" if isinstance(error, DaemonError) else ""


def show(title: str, cause: str = "", hint: str = "", code: str = "") -> None:
    """The three parts of an error, on stderr."""
    mark = style("error:", "bold", "red", stream=sys.stderr)
    note = style(f"  [{code}]", "dim", stream=sys.stderr) if code else ""
    say(f"{mark} {title}{note}")
    for label, text in (("why:", cause), ("next:", hint)):
        if text:
            first, *more = text.splitlines()
            say(f"  {style(label.ljust(5), 'bold', stream=sys.stderr)} {first}")
            for line in more:
                say(f"        {line}")


def _usage(error: TyperException, command: str) -> int:
    """Click's own errors: wrong option, missing argument, bad value."""
    path = _path(command)
    option = getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else ""
    title = error.message if option else error.format_message()
    hint = f"{path} --help"
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        hint = f"Did you mean {' or '.join(sorted(possibilities))}?  All options:  {path} --help"
    if option and path == "sage run":
        hint += f"\nOptions of the pipeline file itself go after --:  sage run FILE -- {option}"
    show(title.rstrip("."), "", hint)
    return getattr(error, "exit_code", exit_codes.USAGE)


def _path(command: str) -> str:
    """The command that was meant by what was typed, without its options: ``sage llm serve``."""
    known = {path for path, _ in walk()}
    path = "sage"
    for word in command.split():
        if f"{path} {word}" not in known:
            break
        path = f"{path} {word}"
    return path


def _unexpected(error: BaseException, command: str) -> int:
    """Anything that nobody foresaw."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        reason = f"The operating system refused it ({type(error).__name__})."
        show(
            f"{error.strerror}{place}",
            reason,
            _ADVICE.get(error.errno or 0) or f"With details:  sage --debug {command}",
        )
        return exit_codes.FAILED
    detail = str(error) or "no details"
    show(
        f"{type(error).__name__}: {detail}",
        "This is a fault in SAGE, not in what you typed.",
        f"With the traceback, for a bug report:  sage --debug {command}",
    )
    return exit_codes.FAILED


def _reader_left() -> int:
    """``sage … | head``: nobody reads any more. Point stdout at nothing, so that the flush at exit stays silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return exit_codes.OK

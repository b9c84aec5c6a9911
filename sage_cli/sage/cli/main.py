"""The entry point of ``sage``: runs the command, prints errors in one place, gives the exit code."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sage`` with ``argv`` (the process's own arguments unless told); returns the exit code.

    ``--debug`` (or ``SAGE_DEBUG=1``) is taken anywhere before a bare ``--``: errors then come with their traceback.
    """
    if argv is None:
        # What is imported now stays until the end: looking through it for garbage is a tenth of a short command's time.
        gc.disable()
    _open_streams()
    args, debug = _take_debug(list(sys.argv[1:] if argv is None else argv))
    if args in (["--version"], ["-V"]):  # without Typer: this costs no more than the interpreter
        from sage.common._version import __version__

        print(f"sage {__version__}")
        return 0
    return _run(args, debug)


def _run(args: list[str], debug: bool) -> int:
    try:
        from sage.cli.app import root

        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        # standalone_mode=False: exceptions come to us; click turns Exit and Ctrl-C into a code that it returns.
        code = root().main(args=args, prog_name="sage", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, args, debug)
    except SystemExit as left:  # click's own answer where nobody reads stdout any more
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        return _report(left.__context__, args, debug)
    return code if isinstance(code, int) else 0


def _report(error: BaseException, args: list[str], debug: bool) -> int:
    from sage.cli.failure import report

    return report(error, debug=debug, command=" ".join(args))


def _open_streams() -> None:
    """Let /dev/null stand in for the standard streams that the caller closed (``sage … >&-``)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end; it takes the free descriptor


def _take_debug(args: list[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, and whether errors shall come with a traceback."""
    end = args.index("--") if "--" in args else len(args)
    head = [arg for arg in args[:end] if arg != "--debug"]
    asked = len(head) < end or os.environ.get("SAGE_DEBUG", "") not in ("", "0")
    if asked:
        os.environ["SAGE_DEBUG"] = "1"
    return [*head, *args[end:]], asked


if __name__ == "__main__":
    sys.exit(main())

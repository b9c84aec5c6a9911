"""The ``sage`` command: parses the command line, calls the other rooms, prints what they answer.

Results go to stdout, messages to stderr; exit codes are in :mod:`sage.cli.exit_codes`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.cli.main import main as main

__all__ = ["main"]


def __getattr__(name: str) -> object:
    if name == "main":
        from sage.cli.main import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

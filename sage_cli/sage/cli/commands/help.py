"""``sage help``: any help page by its words, and the table of exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from sage.cli import exit_codes
from sage.cli.output import emit_json, result


def help_page(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="A command, or exit-codes.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="With exit-codes: print JSON.")] = False,
) -> None:
    """Print a help page."""
    if words == ["exit-codes"]:
        if json:
            emit_json({str(code): meaning for code, meaning in exit_codes.MEANINGS.items()})
        else:
            for code, meaning in exit_codes.MEANINGS.items():
                result(f"{code:>4}  {meaning}")
        return
    from sage.cli.app import root

    code = root().main(args=[*(words or []), "--help"], prog_name="sage", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else exit_codes.OK)

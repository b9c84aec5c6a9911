"""``sage monitor``: the dashboard on a terminal; without one, the same facts as text or JSON."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sage.cli.numbers import LONGEST_INTERVAL_SECONDS, real
from sage.cli.output import emit_json, result
from sage.common.home import SageHome


def dashboard(
    context: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            min=0.2, max=LONGEST_INTERVAL_SECONDS, callback=real, metavar="SECONDS", help="How often it looks."
        ),
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print what it knows as JSON and leave.")] = False,
) -> None:
    """Open the dashboard; where there is no terminal, print what it would show."""
    if context.invoked_subcommand is not None:
        return
    home = SageHome.find()
    if json:
        from sage.tui import snapshot_json

        emit_json(snapshot_json(home))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        from sage.tui import run

        raise typer.Exit(run(home, interval=interval))
    else:
        from sage.tui import snapshot

        result(snapshot(home).rstrip())

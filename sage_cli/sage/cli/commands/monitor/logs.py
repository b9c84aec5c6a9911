"""``sage monitor logs``: the log lines of services and pipelines."""

from __future__ import annotations

from typing import Annotated

import typer

from sage.common.home import SageHome


def logs(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these logs.", show_default=False)
    ] = None,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, metavar="N", help="How many lines of each.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines; Ctrl-C leaves.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the log lines of services and pipelines."""
    from sage.cli.logview import show_logs

    show_logs(SageHome.find(), list(names or []), count=tail, following=follow, as_json=json)

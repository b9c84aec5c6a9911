"""``sage llm stop``: stops the services, whether or not their supervisor lives."""

from __future__ import annotations

from typing import Annotated

import typer

from sage.cli.output import emit_json, say
from sage.common.home import SageHome
from sage.common.stack import read_status


def stop(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; all unless told.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was stopped as JSON.")] = False,
) -> None:
    """Stop what `sage llm serve` started. Nothing running is no error."""
    home = SageHome.find()
    before = read_status(home)
    from sage.cli.stack.names import check_names

    check_names(list(names or []), before, "sage llm stop")
    running = [daemon for daemon in before.daemons if daemon.running and (not names or daemon.name in names)]
    from sage.supervisor import SupervisorClient

    SupervisorClient(home).stop(list(names) if names else None)
    if json:
        emit_json({"stopped": [daemon.name for daemon in running]})
    else:
        say(f"Stopped {', '.join(daemon.name for daemon in running)}." if running else "Nothing was running.")

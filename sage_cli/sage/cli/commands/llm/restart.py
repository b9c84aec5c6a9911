"""``sage llm restart``: the same services again, with fresh processes."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sage.cli.output import duration, emit_json, say
from sage.common.errors import NotRunningError
from sage.common.home import SageHome
from sage.common.stack import read_status


def restart(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; all unless told.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Stop the services and start them again on the same ports, with the same models."""
    home = SageHome.find()
    before = read_status(home)
    if not before.running and not before.supervisor_alive:
        raise NotRunningError("There is nothing to restart", cause="No service runs.", hint="sage llm serve")
    from sage.cli.commands.llm.status import as_dict
    from sage.cli.stack.names import check_names
    from sage.supervisor import SupervisorClient

    check_names(list(names or []), before, "sage llm restart")
    started = time.monotonic()
    client = SupervisorClient(home)
    client.ensure_running()
    client.restart(list(names) if names else None)
    if json:
        emit_json(as_dict(read_status(home), home))
    else:
        what = ", ".join(names) if names else "all services"
        say(f"Restarted {what} in {duration(time.monotonic() - started)}.")

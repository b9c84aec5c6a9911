"""``sage llm restart``: the same services again, with fresh processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sage.cli.output import duration, emit_json, say
from sage.common.errors import NotRunningError
from sage.common.home import SageHome
from sage.common.stack import read_status

if TYPE_CHECKING:
    from sage.common.stack import StackStatus


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
    from sage.cli.stack.launch import not_ready
    from sage.cli.stack.names import check_names
    from sage.supervisor import SupervisorClient

    wanted = list(names or [])
    check_names(wanted, before, "sage llm restart")
    _check_known(wanted, before)
    started = time.monotonic()
    client = SupervisorClient(home)
    client.ensure_running()
    as_they_were = wanted or [daemon.name for daemon in before.daemons if daemon.state != "stopped"]
    coming = [daemon for daemon in client.restart(as_they_were) if daemon.state != "ready"]
    if coming:
        raise not_ready(coming)
    if json:
        from sage.cli.commands.llm.status import as_dict

        emit_json(as_dict(read_status(home), home))
    else:
        what = ", ".join(wanted) or "all services"
        say(f"Restarted {what} in {duration(time.monotonic() - started)}.")


def _check_known(names: list[str], before: StackStatus) -> None:
    """Raise NotRunningError for a service that fell together with its supervisor: the next one knows nothing of it."""
    lost = [] if before.supervisor_alive else [d.name for d in before.daemons if d.state == "dead"]
    lost = [name for name in lost if not names or name in names]
    if lost:
        raise NotRunningError(
            f"Not running any more: {', '.join(lost)}",
            cause="The supervisor, which would have started it again, is gone too.",
            hint="Bring back what is missing:  sage llm serve",
        )

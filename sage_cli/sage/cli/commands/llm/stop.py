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
    from sage.supervisor import SupervisorClient

    earlier = {daemon.name: daemon.state for daemon in before.daemons}
    answered = SupervisorClient(home).stop(list(names) if names else None)
    stopped = [daemon.name for daemon in answered if earlier.get(daemon.name) != "stopped"]
    if json:
        emit_json({"stopped": stopped})
    else:
        say(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")

"""``sage llm serve``: gateway, engine and embedding server, supervised in the background."""

from __future__ import annotations

import random
import time
from typing import Annotated

import typer

from sage.cli.output import duration, emit_json, result, say, table
from sage.cli.stack.compare import differences
from sage.cli.stack.events import EventLines
from sage.cli.stack.models import BUILTIN
from sage.cli.stack.plan import StackRequest, make_plan
from sage.cli.stack.room import check_room
from sage.cli.stack.turn import our_turn
from sage.common.config.ports import LOOPBACK
from sage.common.errors import ConfigError, DaemonError
from sage.common.home import SageHome
from sage.common.stack import StackStatus, read_status

_APART_SECONDS = 1.0
_PORT = {"min": 1, "max": 65535, "metavar": "PORT"}


def serve(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model folder or cached hub name.", show_default=BUILTIN)
    ] = None,
    embedding_model: Annotated[
        str | None, typer.Option(help="hash, a model folder or a cached hub name.", show_default="hash")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The engine's port.", show_default=False, **_PORT)] = None,
    embedding_port: Annotated[
        int | None, typer.Option(help="The embedding server's port.", show_default=False, **_PORT)
    ] = None,
    gateway_port: Annotated[int | None, typer.Option(help="The gateway's port.", show_default=False, **_PORT)] = None,
    no_embedding: Annotated[bool, typer.Option("--no-embedding", help="Without the embedding server.")] = False,
    host: Annotated[str, typer.Option(help="Where the gateway listens; engines stay on loopback.")] = LOOPBACK,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, print the logs; Ctrl-C stops all.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the status as JSON when ready.")] = False,
) -> None:
    """Start gateway, engine and embedding server in the background; return when they are ready.

    A port that you name must be free; a default port moves to the next free one. Running it again changes nothing.
    """
    request = StackRequest(model, embedding_model, port, embedding_port, gateway_port, no_embedding, host)
    home = SageHome.find().ensure()
    with our_turn(home):
        stack = _bring_up(request, home)
    _show(stack, home, as_json=json)
    if foreground:
        from sage.cli.stack.foreground import stay

        stay(home)


def _bring_up(request: StackRequest, home: SageHome) -> StackStatus:
    before = read_status(home)
    other = differences(request, before)
    if other:
        raise ConfigError(
            "The services already run, with other options",
            cause="; ".join(other),
            hint=f"sage llm stop && {request.typed()}",
        )
    plan = make_plan(request, home, before)
    check_room(home)
    ready = {daemon.name for daemon in before.daemons if daemon.state == "ready"}
    if before.supervisor_alive and plan.wanted <= ready:
        say("Already running.")
        return before
    from sage.cli.stack.launch import launch, lost_a_port

    started = time.monotonic()
    for last_try in (False, False, False, True):
        for note in plan.notes:
            say(f"note: {note}")
        try:
            stack = launch(home, plan, before, EventLines().show)
            break
        except DaemonError as error:
            if last_try or not lost_a_port(plan, error):
                raise
            say("Another program took a port meanwhile; choosing again …")
            time.sleep(random.uniform(0, _APART_SECONDS))
            before = read_status(home)
            plan = make_plan(request, home, before)
    say(f"Ready in {duration(time.monotonic() - started)}.")
    return stack


def _show(stack: StackStatus, home: SageHome, *, as_json: bool) -> None:
    if as_json:
        from sage.cli.commands.llm.status import as_dict

        emit_json(as_dict(stack, home))
        return
    running = [daemon for daemon in stack.daemons if daemon.running]
    rows = [(d.name, d.url + ("/v1" if d.kind == "gateway" else ""), d.model) for d in running]
    for line in table(rows, ("SERVICE", "URL", "MODEL")):
        result(line)
    if any(daemon.model == BUILTIN for daemon in stack.daemons):
        say("The built-in model is a small demonstration model: it knows SAGE and little else.")
        say("To use a bigger one:  sage llm stop && sage llm serve --model PATH")
    say('Try:  sage chat "What is SAGE?"   sage monitor   sage llm status   sage llm stop')

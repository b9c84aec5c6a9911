"""``sage llm status``: the truth about the services, also when their supervisor is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage.cli import exit_codes
from sage.cli.output import duration, emit_json, result, say, style, table
from sage.common.home import SageHome
from sage.common.stack import read_status

if TYPE_CHECKING:
    from sage.common.stack import DaemonStatus, StackStatus

_COMING = ("starting", "stopping")


def status(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which services run, on which ports.

    Exit code 0: all are ready. 1: one is not. 3: nothing runs.
    """
    home = SageHome.find()
    stack = read_status(home)
    code = verdict(stack)
    if json:
        emit_json(as_dict(stack, home))
    else:
        _print(stack, home)
    raise typer.Exit(code)


def verdict(stack: StackStatus) -> int:
    """The exit code that ``stack`` stands for; a service that is just starting or stopping is not a failure."""
    wanted = [daemon for daemon in stack.daemons if daemon.state != "stopped"]
    if not wanted or not (stack.running or stack.supervisor_alive):
        return exit_codes.NOT_RUNNING
    broken = any(daemon.state not in ("ready", *_COMING) for daemon in wanted)
    return exit_codes.FAILED if broken else exit_codes.OK


def as_dict(stack: StackStatus, home: SageHome) -> dict[str, Any]:
    """The status as plain JSON values."""
    code = verdict(stack)
    return {
        "running": code != exit_codes.NOT_RUNNING,
        "ready": code == exit_codes.OK and all(daemon.state in ("ready", "stopped") for daemon in stack.daemons),
        "home": str(home.root),
        "supervisor": {"alive": stack.supervisor_alive, "pid": stack.supervisor_pid},
        "daemons": [daemon.to_dict() for daemon in stack.daemons],
        "notes": list(stack.notes),
    }


def _print(stack: StackStatus, home: SageHome) -> None:
    if verdict(stack) == exit_codes.NOT_RUNNING:
        result(f"Nothing is running ({home.root}).")
        for daemon in stack.daemons:
            if daemon.state != "stopped":
                say(f"{daemon.name}: {daemon.last_error or daemon.state}")
        say("Start the services:  sage llm serve")
        return
    header = ("NAME", "STATE", "PID", "URL", "MODEL", "UP", "RESTARTS")
    lines = table([_row(daemon) for daemon in stack.daemons], header)
    result(style(lines[0], "dim"))
    for daemon, line in zip(stack.daemons, lines[1:], strict=True):
        result(line.replace(daemon.state, style(daemon.state, _color(daemon.state)), 1))
    if stack.supervisor_alive:
        result(style(f"supervisor: pid {stack.supervisor_pid}", "dim"))
    else:
        result("supervisor: not running")
    for note in stack.notes:
        say(f"note: {note}")
    for daemon in stack.daemons:
        if daemon.last_error and daemon.state != "ready":
            say(f"{daemon.name}: {daemon.last_error}")
            say(f"  see:  sage llm logs {daemon.name}")


def _row(daemon: DaemonStatus) -> tuple[str, ...]:
    up = duration(time.time() - daemon.ready_at) if daemon.ready_at and daemon.state == "ready" else "-"
    pid = str(daemon.pid) if daemon.pid else "-"
    return daemon.name, daemon.state, pid, daemon.url, daemon.model or "-", up, str(daemon.restarts)


def _color(state: str) -> str:
    if state == "ready":
        return "green"
    return "yellow" if state in (*_COMING, "stopped", "backing-off") else "red"

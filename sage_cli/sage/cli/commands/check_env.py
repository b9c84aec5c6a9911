"""``sage check-env``: is this machine ready for SAGE?"""

from __future__ import annotations

from typing import Annotated

import typer

from sage.cli import exit_codes
from sage.cli.output import emit_json, result, say, style
from sage.common.home import SageHome

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def check_env(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check python, torch, accelerator, disk, ports, WSL2, model cache, extras and the state directory.

    Exit code 1 when something required is broken; each problem comes with the next step.
    """
    from sage.cli.checks import run_checks

    checks = run_checks(SageHome.find())
    broken = [check.name for check in checks if check.status == "fail"]
    if json:
        rows = [{"name": c.name, "status": c.status, "detail": c.detail, "next": c.next} for c in checks]
        emit_json({"ok": not broken, "checks": rows})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark, color = _MARKS[check.status]
            result(f"{style(mark, color)}  {check.name.ljust(width)}  {check.detail}")
            if check.next:
                result(f"      {' ' * width}  {style('next:', 'dim')} {check.next}")
        say(f"Broken: {', '.join(broken)}." if broken else "This machine is ready.")
    raise typer.Exit(exit_codes.FAILED if broken else exit_codes.OK)

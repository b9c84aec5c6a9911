"""What ``sage check-env`` looks at. Each check answers in one row; none imports what it looks for."""

from __future__ import annotations

from sage.cli.checks.check import Check
from sage.cli.checks.machine import accelerator, disk, python, wsl
from sage.cli.checks.packages import builtin_model, extras, model_cache, torch
from sage.cli.checks.state import ports, state_directory
from sage.common.home import SageHome

__all__ = ["Check", "run_checks"]


def run_checks(home: SageHome) -> list[Check]:
    """All rows, in the order in which they are read."""
    return [
        python(),
        torch(),
        accelerator(),
        disk(home),
        *ports(home),
        wsl(),
        builtin_model(),
        model_cache(),
        *extras(),
        state_directory(home),
    ]

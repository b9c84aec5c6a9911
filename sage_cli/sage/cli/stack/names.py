"""Names of daemons as people type them."""

from __future__ import annotations

from sage.cli.suggest import nearest
from sage.common.errors import UsageError
from sage.common.stack import StackStatus


def check_names(names: list[str], stack: StackStatus, command: str) -> None:
    """Raise UsageError, with the nearest name, for one that the stack does not have."""
    known = [daemon.name for daemon in stack.daemons]
    for name in names:
        if name not in known:
            match = nearest(name, known)
            hint = f"Did you mean:  {command} {match[0]}" if match else "See what runs:  sage llm status"
            raise UsageError(
                f"There is no service {name!r}", cause=f"There are: {', '.join(known) or 'none'}.", hint=hint
            )

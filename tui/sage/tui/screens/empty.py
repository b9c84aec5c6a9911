"""What a person sees before anything has run: the next commands to type."""

from __future__ import annotations

from textual.content import Content

from sage.tui.widgets.draw import dim, line, stack

__all__ = ["COMMANDS", "empty_state"]

COMMANDS = (
    ("Start the local stack", "sage llm serve"),
    ("Make a project", "sage init my-project --template=llm-pipeline"),
    ("Run a pipeline", "sage run local pipeline.py"),
)
"""What one can do when nothing runs, and how."""


def empty_state() -> Content:
    """The commands, one a line."""
    width = max(len(what) for what, _ in COMMANDS)
    commands = [line(dim(what.ljust(width + 3)), (command, "bold $text-accent")) for what, command in COMMANDS]
    head = line(("Nothing runs here yet.", "bold"))
    return stack(
        [head, line(""), *commands, line(""), line(dim("This screen fills itself as soon as something runs."))]
    )

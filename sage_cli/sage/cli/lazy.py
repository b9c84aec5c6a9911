"""Command groups that import a command's module only when it is run.

Help pages and shell completion see placeholders made from the manifest; :meth:`LazyGroup.resolve_command` loads the
real thing. Typer 0.28 carries its own copy of click, whose types appear here because the methods override its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from typer import Typer
from typer._click import Command, Context
from typer.core import MarkupMode, TyperCommand, TyperGroup
from typer.main import get_command, get_group

from sage.cli.manifest import Entry
from sage.cli.output import colored


def markup_mode() -> MarkupMode:
    """Rich help on a terminal; plain text (and no import of rich) everywhere else."""
    return "markdown" if colored(sys.stdout) else None


class LazyGroup(TyperGroup):
    """A group whose commands come from manifest entries."""

    entries: tuple[Entry, ...] = ()

    def list_commands(self, ctx: Context) -> list[str]:
        return [entry.name for entry in self.entries]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """A placeholder that carries the name and the help line: enough for help pages and completion."""
        entry = self._entry(cmd_name)
        if entry is None:
            return None
        return TyperCommand(entry.name, help=entry.help, short_help=entry.help, rich_markup_mode=self.rich_markup_mode)

    def load_command(self, name: str) -> Command | None:
        """The command itself; imports its module. None where there is no such command."""
        entry = self._entry(name)
        return None if entry is None else build(entry)

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As click does, but a bare group prints its help page (exit 0) in place of an error."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            ctx.get_help() if self.rich_markup_mode else print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, rest = args[0], args[1:]
        command = self.load_command(name)
        if command is None and not ctx.resilient_parsing:
            from sage.cli.suggest import unknown_command

            raise unknown_command(name, ctx.command_path, self.entries)
        return (name if command else None), command, rest

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.name == name), None)


def build(entry: Entry) -> Command:
    """The click command or group of one manifest entry."""
    function = _load(entry.target) if entry.target else None
    if not entry.children:
        return _command(entry, cast("Callable[..., Any]", function))
    return group(entry.name, entry.help, entry.children, function)


def group(
    name: str,
    help_text: str,
    entries: tuple[Entry, ...],
    callback: Callable[..., Any] | None = None,
    *,
    completion: bool = False,
    always_call: bool = False,
) -> LazyGroup:
    """A lazy group; with a ``callback`` it can also be run without a command.

    ``always_call`` marks the root, whose callback only takes options and needs a command after it.
    """
    app = Typer(
        name=name,
        help=help_text,
        cls=LazyGroup,
        add_completion=completion,
        invoke_without_command=callback is not None and not always_call,
        rich_markup_mode=markup_mode(),
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(callback or _no_options)
    made = cast("LazyGroup", get_command(app) if completion else get_group(app))
    made.entries = entries
    made.help = help_text
    return made


def _command(entry: Entry, function: Callable[..., Any]) -> Command:
    app = Typer(add_completion=False, rich_markup_mode=markup_mode(), pretty_exceptions_enable=False)
    settings = {"help_option_names": ["--help", "-h"], **getattr(function, "context_settings", {})}
    app.command(entry.name, context_settings=settings, cls=getattr(function, "command_class", TyperCommand))(function)
    return get_command(app)


def _load(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), attribute))


def _no_options() -> None:
    """A group that only holds commands."""

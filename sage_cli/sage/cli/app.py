"""The root of the command tree."""

from __future__ import annotations

from typing import Annotated

import typer

from sage.cli.lazy import LazyGroup, group
from sage.cli.manifest import ROOT

_ABOUT = """SAGE: a local AI stack with a dataflow engine, an LLM engine, a gateway and a dashboard.

First steps:  sage check-env,  sage llm serve,  sage chat "Hello",  sage init my-project --template=llm-pipeline"""


def root() -> LazyGroup:
    """The ``sage`` command; commands are loaded when they are run."""
    return group("sage", _ABOUT, ROOT, _options, completion=True, always_call=True)


def _print_version(asked: bool) -> None:
    if asked:
        from sage.cli.output import result
        from sage.common._version import __version__

        result(f"sage {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and leave.", is_eager=True, callback=_print_version),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Both options have done their work before this runs: an eager callback, and the entry point's own reading."""
    del version, debug

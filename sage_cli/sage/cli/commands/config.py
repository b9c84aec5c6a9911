"""``sage config show``: every setting and where its value comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from sage.cli.output import emit_json, result, table
from sage.common.config.settings import KEYS, Settings
from sage.common.home import SageHome


def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also tell where each value comes from.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every setting; secrets are masked.

    The first that knows a value wins: argument, SAGE_* environment and .env, sage.toml, the running services, default.
    """
    settings = list(Settings.load(SageHome.find()))
    if json:
        emit_json(
            [
                {"key": row.key, "value": row.shown if KEYS[row.key].secret else row.value, "origin": row.origin}
                for row in settings
            ]
        )
        return
    header = ("KEY", "VALUE", "FROM") if origin else ("KEY", "VALUE")
    rows = [(row.key, row.shown or "-", row.origin)[: len(header)] for row in settings]
    for line in table(rows, header):
        result(line)

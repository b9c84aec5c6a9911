"""``sage monitor metrics``: what the dashboard measures, as text or JSON."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sage.cli import exit_codes
from sage.cli.output import emit_json, result
from sage.common.errors import NotRunningError
from sage.common.home import SageHome


def metrics(
    live: Annotated[bool, typer.Option("--live", help="Keep printing; Ctrl-C leaves.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="With --live: how often.")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="JSON; with --live one object a line.")] = False,
) -> None:
    """Print load, rates and latencies of the running services and pipelines."""
    import json as json_module

    from sage.cli.metrics_view import lines
    from sage.tui.data import Collector
    from sage.tui.text import plain

    collector = Collector(SageHome.find())
    try:
        shown = collector.collect()
        if shown.empty and not live:
            raise NotRunningError(
                "There is nothing to measure", cause=f"Nothing has run under {shown.home}.", hint="sage llm serve"
            )
        # Rates are differences: a second look gives them.
        time.sleep(min(interval, 1.0))
        while True:
            shown = collector.collect()
            if json:
                result(json_module.dumps(plain(shown))) if live else emit_json(plain(shown))
            else:
                result("\n".join(lines(shown)))
            if not live:
                raise typer.Exit(exit_codes.OK)
            time.sleep(interval)
    finally:
        collector.close()

"""``sage monitor metrics``: what the dashboard measures, as text or JSON."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sage.cli.numbers import LONGEST_INTERVAL_SECONDS, real
from sage.cli.output import emit_json, result
from sage.common.errors import NotRunningError
from sage.common.home import SageHome

if TYPE_CHECKING:
    from sage.tui.data import Collector, Snapshot


def metrics(
    live: Annotated[bool, typer.Option("--live", help="Keep printing; Ctrl-C leaves.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            min=0.2, max=LONGEST_INTERVAL_SECONDS, callback=real, metavar="SECONDS", help="With --live: how often."
        ),
    ] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="JSON; with --live one object a line.")] = False,
) -> None:
    """Print load, rates and latencies of the running services and pipelines."""
    from sage.cli.metrics_view import lines
    from sage.tui.data import Collector
    from sage.tui.text import plain

    collector = Collector(SageHome.find())
    try:
        for taken in _looks(collector, interval, live=live):
            if not json:
                result("\n".join(lines(taken)))
            elif live:
                result(json_module.dumps(plain(taken)))
            else:
                emit_json(plain(taken))
    finally:
        collector.close()


def _looks(collector: Collector, interval: float, *, live: bool) -> Iterator[Snapshot]:
    """One snapshot, or one every ``interval`` seconds; rates are differences, so the first look is not given out.

    Raises NotRunningError where nothing has ever run (``live`` waits for something).
    """
    first = collector.collect()
    if first.empty and not live:
        raise NotRunningError(
            "There is nothing to measure", cause=f"Nothing has run under {first.home}.", hint="sage llm serve"
        )
    time.sleep(min(interval, 1.0))
    yield collector.collect()
    while live:
        time.sleep(interval)
        yield collector.collect()
